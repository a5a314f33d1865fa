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
