"""`stackconf hardware` as a picture: on narrow terminals, in poor encodings, in a file."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

from stackconf import simulate
from stackconf.cli.output import Screen
from stackconf.cli.picture import draw


def drawn(columns, encoding="utf-8"):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    screen = Screen(stream)
    screen.width = columns
    draw(screen, simulate("l40s:2,cpu=8"))
    stream.flush()
    return stream.buffer.getvalue().decode(encoding).splitlines()


def test_a_picture_fits_the_terminal_or_is_left_out():
    assert {len(line) for line in drawn(200) if line} == {80}
    assert {len(line) for line in drawn(50) if line} == {50}
    assert drawn(15) == []


def test_ascii_is_enough():
    assert drawn(40, "ascii")[0] == "+ synthetic: l40s:2,cpu=8 -------------+"
    assert drawn(40, "latin-1") == drawn(40, "ascii")


def test_a_picture_is_written_to_a_file(cli, tmp_path):
    file = tmp_path / "box.svg"
    ran = cli("hardware", "--hardware", "l40s:2,cpu=8", "--svg", str(file), plugin=False)
    assert (ran.code, ran.out, ran.err) == (0, "", f"wrote {file}\n")
    assert ET.fromstring(file.read_text(encoding="utf-8")).get("role") == "img"


def test_a_picture_that_cannot_be_written_is_one_line(cli, tmp_path):
    ran = cli("hardware", "--hardware", "l4", "--svg", str(tmp_path / "no" / "box.svg"), plugin=False)
    assert ran.code == 1
    assert ran.err.endswith("box.svg: No such file or directory; the picture was not written\n")
    for other in ("--json", "--catalogue"):
        ran = cli("hardware", "--hardware", "l4", "--svg", "box.svg", other, plugin=False)
        assert ran.code == 2


SERVING = """
from pydantic import BaseModel
from stackconf import ProviderType, user_field


class Config(BaseModel):
    memory: float = user_field(0.4, claims="accelerator_memory_fraction")
    url: str = user_field("")


provides = (
    ProviderType("inference", "remote::acme", Config, accelerators=True),
    ProviderType("vector_io", "inline::acme", Config, accelerators=True),
)
"""


def test_usage_draws_who_has_what_and_why(cli, here):
    (here / "plugin.py").write_text(SERVING, encoding="utf-8")
    ran = cli("hardware", "--usage", "--hardware", "l4")
    assert ran.code == 0
    assert "│ │ > inference/one takes 40 %" in ran.out
    assert (
        "inference/one: 47.5 % of card 0, shared with vector_io/vectors: 2 providers on 1 card\n" in ran.out
    )
    told = cli("hardware", "--usage", "--hardware", "l4", "--json").data["usage"]
    assert told[0]["cards"] == [{"index": 0, "uuid": None, "share": 0.475, "claimed": 0.4}]
    assert "  has 47.5 % of card 0" in cli("explain", "one", "--hardware", "l4").out
    ran = cli("hardware", "--usage", "--hardware", "l4", "--svg", "box.svg")
    assert "&gt; inference/one takes 40 %" in (here / "box.svg").read_text(encoding="utf-8")


def test_usage_says_what_does_not_fit(cli, here):
    (here / "plugin.py").write_text(SERVING.replace("0.4", "0.6"), encoding="utf-8")
    ran = cli("hardware", "--usage", "--hardware", "l4")
    assert ran.code == 1
    assert "error: card 0: 1.2 of its memory is claimed: inference/one 0.6" in ran.err
    assert cli("hardware", "--usage", "--hardware", "l4:2").code == 0


def test_usage_is_about_a_stack(cli, here):
    (here / "stack.yaml").unlink()
    ran = cli("hardware", "--usage", "--hardware", "l4")
    assert ran.code != 0
    assert "stack" in ran.err
    assert cli("hardware", "--usage", "--catalogue").code == 2
