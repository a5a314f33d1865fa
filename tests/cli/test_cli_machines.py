"""`--hardware`: other machines than this one, one at a time and side by side."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from attrs import evolve

from stackconf import Visibility, simulate

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("side_by_side.txt")
MACHINES = (
    "cpu=4,memory=16GiB",
    "l40s:2,cpu=32/64,memory=256GiB",
    "a100-40gb-sxm:4,cpu=64/128,memory=512GiB",
    "h100-80gb-sxm:8,cpu=96/192,memory=1TiB",
)
VARIABLES = ("SQLITE_STORE_DIR", "OLLAMA_URL", "OPENAI_API_KEY", "OTEL_SERVICE_NAME", "TELEMETRY_SINKS")

PLUGIN = """
from pydantic import BaseModel, SecretStr
from stackconf import Issue, ProviderType, because, hookimpl, user_field


class Config(BaseModel):
    cards: int = user_field(0)
    token: SecretStr | None = user_field(None)
    fixed: int = user_field(7)


provides = (
    ProviderType("inference", "remote::acme", Config),
    ProviderType("vector_io", "inline::acme", Config),
)


@hookimpl
def default_config(provider, hardware):
    if provider.api != "inference":
        return None
    return {"cards": because(len(hardware.accelerators), "one worker a card")}


@hookimpl
def validate_user_config(provider, user_config, config, hardware):
    if provider.api == "inference" and len(hardware.accelerators) > 4:
        yield Issue("at most 4 cards", path="cards", hint="take fewer")
    if provider.api == "vector_io":
        yield Issue("vectors are slow everywhere", level="warning")


@hookimpl
def apply_config(provider, config, previous):
    raise AssertionError("nothing is applied here")
"""


@pytest.fixture
def stack(here):
    (here / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    text = (here / "stack.yaml").read_text(encoding="utf-8").replace("      url: http://one\n", "")
    (here / "stack.yaml").write_text(text, encoding="utf-8")
    return here


# ------------------------------------------------------------------------------- one other machine


def test_a_snapshot_of_one_machine_is_planned_on_another(cli, stack, monkeypatch):
    monkeypatch.delenv("STACKCONF_DISABLED_PLUGINS")
    (stack / "machine" / "etc").mkdir(parents=True)
    (stack / "machine" / "etc" / "hostname").write_text("gpu-7\n", encoding="utf-8")
    monkeypatch.setenv("STACKCONF_HARDWARE_ROOT", str(stack / "machine"))
    monkeypatch.setenv("STACKCONF_DISABLED_PLUGINS", "nvidia")
    recorded = cli("hardware", "--json", plugin=False)
    (stack / "box.json").write_text(recorded.out, encoding="utf-8")
    assert recorded.data["provenance"]["kind"] == "recorded"
    assert recorded.data["provenance"]["host"] == "gpu-7"
    monkeypatch.setenv("STACKCONF_HARDWARE_ROOT", "/nowhere")
    ran = cli("plan", "--hardware", "box.json")
    assert ran.code == 0
    assert ran.out.startswith("hardware: box.json, recorded on gpu-7, 20")
    told = cli("plan", "--hardware", "box.json", "--json").data["hardware"]
    assert (told["given"], told["kind"], told["host"]) == ("box.json", "recorded", "gpu-7")
    piped = cli("check", "--hardware", "-", stdin=recorded.out)
    assert piped.out.startswith("hardware: standard input, recorded on gpu-7, 20")


@pytest.mark.parametrize(
    ("args", "start"),
    [
        (["plan"], "hardware: synthetic, from l4:2\n\n+ inference/one"),
        (["check"], "hardware: synthetic, from l4:2\nstack.yaml: 2 providers"),
        (
            ["explain", "one", "cards"],
            "hardware: synthetic, from l4:2\ninference/one (remote::acme)\n\n  cards = 2",
        ),
        (["providers", "list"], "hardware: synthetic, from l4:2\nprovider "),
        (["inspect"], "# hardware: synthetic, from l4:2\nproviders:\n"),
        (["configurations", "inspect"], "# hardware: synthetic, from l4:2\nproviders:\n"),
        (["hardware"], "hardware: synthetic, from l4:2\n\n┌ synthetic: l4:2 ─"),
    ],
)
def test_every_command_that_takes_a_machine_says_which(cli, stack, args, start):
    ran = cli(*args, "--hardware", "l4:2")
    assert ran.code == 0
    assert ran.out.startswith(start)
    before = cli("--hardware", "l4:2", *args)
    assert before.out == ran.out
    told = cli(*args, "--hardware", "l4:2", "--json").data
    where = told["provenance"] if args == ["hardware"] else told["hardware"]
    assert (where["kind"], where["expression"]) == ("synthetic", "l4:2")


@pytest.mark.parametrize(
    "args",
    [
        ["apply"],
        ["recover"],
        ["status"],
        ["drift"],
        ["configurations", "register", "{}"],
        ["configurations", "assign", "x"],
        ["plugins", "list"],
        ["providers", "show", "one"],
    ],
)
def test_what_is_about_this_machine_refuses_another(cli, stack, args):
    ran = cli("--hardware", "l4:2", *args)
    assert ran.code == 2
    assert ran.err.startswith(
        f"error: `stackconf {' '.join(args[:2]) if len(args) > 1 else args[0]}` is about this"
    )
    assert not (stack / ".stackconf").exists()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["plan", "--hardware", "l4", "-o", "p.json"], 2, "-o writes a plan to apply here"),
        (
            ["plan", "--hardware", "l4", "--hardware", "t4", "--exit-code"],
            2,
            "--exit-code is for one machine",
        ),
        (["plan", "--all"], 2, "--all is for several --hardware"),
        (["check", "--hardware", "l4", "--hardware", "t4"], 2, "one --hardware at a time"),
        (["plan", "--hardware", "h100:8"], 1, "did you mean `h100-80gb-sxm`"),
        (["plan", "--hardware", "none.json"], 1, "none.json: No such file or directory"),
        (["plan", "--hardware", "plugin.py"], 1, "plugin.py is a file; give it as --hardware ./plugin.py"),
        (["plan", "--hardware", "./plugin.py"], 1, "is no snapshot of a machine"),
        (["plan", "--hardware", ""], 1, "an empty expression describes no machine"),
        (["plan", "--hardware", "-", "--hardware", "-"], 1, "--hardware - was given twice"),
    ],
)
def test_a_mistake_is_one_clear_line(cli, stack, args, code, said):
    ran = cli(*args)
    assert ran.code == code
    assert said in ran.err.splitlines()[0]
    assert ran.out == ""


def test_a_synthetic_machine_can_be_saved_and_stays_synthetic(cli, stack):
    (stack / "box.json").write_text(
        cli("hardware", "--hardware", "gb10,cpu=20", "--json").out, encoding="utf-8"
    )
    ran = cli("check", "--hardware", "box.json")
    assert ran.out.startswith("hardware: box.json, synthetic, from gb10,cpu=20\n")


def test_without_the_option_nothing_is_said(cli, stack):
    assert "hardware" not in cli("plan", "--json").data
    assert "hardware:" not in cli("plan").out


def test_a_plan_for_another_machine_makes_no_store(cli, stack):
    cli("plan", "--hardware", "l4")
    cli("plan", "--hardware", "l4", "--hardware", "t4")
    assert not (stack / ".stackconf").exists()


@pytest.mark.parametrize(
    ("value", "seen", "told"),
    [("7", [False, False], ' "7" (hides all)'), ("1", [False, True], ' "1"'), ("0", [None, None], ' "0"')],
)
def test_a_variable_that_names_no_card_hides_all(cli, stack, value, seen, told):
    box = simulate("l4:2")
    cards = [evolve(card, visible=each) for card, each in zip(box.accelerators, seen, strict=True)]
    named = (Visibility("CUDA_VISIBLE_DEVICES", value),)
    evolve(box, accelerators=cards, visibility=named).save(stack / "box.json")
    assert f"  CUDA_VISIBLE_DEVICES {told}\n" in cli("hardware", "--hardware", "box.json", plugin=False).out


# ------------------------------------------------------------------------------------ side by side


def several(*texts):
    return [part for text in texts for part in ("--hardware", text)]


def test_the_machines_stand_side_by_side(cli, stack):
    ran = cli("plan", *several("cpu=4", "l4:2", "l40s:8"))
    assert ran.code == 1, "invalid on one of them"
    assert ran.out == (
        "inference/one (remote::acme)\n"
        "  field  cpu=4  l4:2  l40s:8\n"
        "  cards  0      2     8\n"
        "  invalid on l40s:8: see below\n"
        "\n"
        "the same on each machine: vector_io/vectors\n"
        "\n"
        "cpu=4: synthetic, from cpu=4; no issues of its own\n"
        "l4:2: synthetic, from l4:2; no issues of its own\n"
        "l40s:8: synthetic, from l40s:8; 1 error\n"
        "    stack.yaml:5:5: error: inference/one: config.cards: at most 4 cards; take fewer\n"
        "\n"
        "stack.yaml, revision 0, on 3 machines: 1 field would differ\n"
    )
    assert ran.err == "stack.yaml:12:5: warning: vector_io/vectors: vectors are slow everywhere\n"


def test_the_reasons_and_the_fields_that_do_not_differ(cli, stack):
    assert "    cards on l4:2: one worker a card\n" in cli("plan", "-v", *several("t4", "l4:2")).out
    every = cli("plan", "--all", *several("t4", "l4:2")).out
    assert "  fixed  7     7\n" in every
    assert "the same on each machine" not in every
    assert "s3cret" not in every


def test_side_by_side_for_programs(cli, stack):
    told = cli("plan", "--json", *several("t4", "l40s:8")).data
    assert [each["name"] for each in told["machines"]] == ["t4", "l40s:8"]
    assert [len(each["issues"]) for each in told["machines"]] == [0, 1]
    assert [each["message"] for each in told["issues"]] == ["vectors are slow everywhere"]
    one, vectors = told["providers"]
    assert one["valid"] == [True, False]
    (field,) = one["fields"]
    assert (field["path"], field["differs"]) == ("cards", True)
    assert [each["value"] for each in field["values"]] == [1, 8]
    assert field["values"][0]["reason"] == "one worker a card"
    assert vectors["fields"] == []
    assert len(cli("plan", "--json", "--all", *several("t4", "l4")).data["providers"][1]["fields"]) == 3


def test_assigned_configurations_count(cli, stack):
    cli("configurations", "register", '{"inference": [{"provider_id": "one", "config": {"cards": 3}}]}')
    ran = cli("plan", *several("t4", "l4:2"))
    assert "the same on each machine: inference/one, vector_io/vectors" in ran.out
    assert "revision 1, on 2 machines: 0 fields would differ" in ran.out


def test_machines_that_look_alike_have_names_that_tell_them_apart(cli, stack):
    ran = cli("plan", "--json", *several("l4,cpu=4", "l4,cpu=8", "l4,cpu=8"))
    assert [each["name"] for each in ran.data["machines"]] == ["l4,cpu=4", "l4,cpu=8", "l4,cpu=8 (2)"]


@pytest.mark.skipif(
    importlib.util.find_spec("stackconf_ollama") is None, reason="it needs the project's plugins"
)
def test_the_stack_of_issue_993_on_four_machines(cli, here, monkeypatch):
    for variable in [*VARIABLES, "BRAVE_SEARCH_API_KEY", "TAVILY_SEARCH_API_KEY"]:
        monkeypatch.delenv(variable, raising=False)
    shutil.copy(ROOT / "examples" / "issue-993" / "stack.yaml", here / "stack.yaml")
    ran = cli("plan", *several(*MACHINES), plugin=False)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == GOLDEN.read_text(encoding="utf-8")


# --------------------------------------------------------------------------------- the catalogue


def test_the_catalogue_is_listed_with_its_sources(cli, here):
    ran = cli("hardware", "--catalogue", plugin=False)
    lines = ran.out.splitlines()
    (h100,) = [line.split() for line in lines if line.startswith("h100-80gb-sxm ")]
    assert [each for each in ("81559", "3350", "989", "1978", "9.0", "450") if each not in h100] == []
    (b200,) = [line for line in lines if line.startswith("b200")]
    assert " 7700? " in b200
    (t4,) = [line for line in lines if line.startswith("t4 ")]
    assert " none " in t4
    (gb10,) = [line for line in lines if line.startswith("gb10 ")]
    assert " ~213 " in gb10
    assert any("https://github.com/ai-dynamo/aiconfigurator" in line for line in lines)
    assert any(
        "rtx-5090, bf16: sources disagree" in line
        for line in cli("hardware", "--catalogue", "-v").out.splitlines()
    )


def test_the_catalogue_for_programs_is_what_the_slugs_mean(cli, here):
    told = cli("hardware", "--catalogue", "--json", plugin=False).data
    (l40s,) = [each for each in told["cards"] if each["slug"] == "l40s"]
    assert l40s["bandwidth"]["value"] == 864 * 10**9
    assert l40s["bandwidth"]["source"] in told["sources"]
    assert l40s["compute"][0]["flops"]["value"] == 362_050_000_000_000
    for each in told["cards"]:
        assert cli("hardware", "--hardware", each["slug"], "--json", plugin=False).code == 0


def test_the_picture_shows_figures_as_the_models_and_not_as_read(cli, here):
    ran = cli("hardware", "--hardware", "l40s:2,h100-80gb-sxm", plugin=False)
    assert "  of the models, from the catalogue\n" in ran.out
    assert ran.out.count("864 GB/s; BF16 362.05, FP8 733") == 1
    assert json.loads(cli("hardware", "--hardware", "l40s", "--json", plugin=False).out)["accelerators"][0][
        "nominal"
    ]


def test_the_help_shows_the_option_where_it_counts(cli, here):
    assert "--hardware FILE|EXPR" in cli("plan", "--help", plugin=False).out
    assert "--hardware" not in cli("apply", "--help", plugin=False).out


def test_a_machine_can_be_completed(process, here):
    def completed(words: str) -> str:
        number = str(len(words.split()) - 1)
        return process(_STACKCONF_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=number).out

    assert completed("stackconf plan --hardware l4").splitlines() == [
        "plain,l4",
        "plain,l40",
        "plain,l40s",
        "file,l4",
    ]
    assert completed("stackconf plan --hardware l4:2,mem").splitlines() == ["plain,l4:2,memory="]


LISTS = """
from pydantic import BaseModel
from stackconf import ProviderType, because, hookimpl

stackconf_api = 1


class Config(BaseModel):
    devices: list[dict[str, str | int]] | None = None


provides = (ProviderType("inference", "remote::lists", Config),)


@hookimpl
def default_config(hardware):
    cards = [{"name": card.name, "memory_bytes": card.memory_bytes} for card in hardware.accelerators]
    return {"devices": because(cards, f"{len(cards)} x a card")}
"""
LISTING = """
version: 2
providers:
  inference:
  - provider_id: lists
    provider_type: remote::lists
"""


def test_a_long_list_is_told_by_its_reason_and_programs_have_all_of_it(cli, stack):
    (stack / "lists.py").write_text(LISTS, encoding="utf-8")
    (stack / "stack.yaml").write_text(LISTING, encoding="utf-8")
    args = ("plan", "--plugin", "lists.py", *several("cpu=4", "l4:2", "l40s:8"))
    assert cli(*args, plugin=False).out.splitlines()[1:3] == [
        "  field    cpu=4  l4:2          l40s:8",
        "  devices  []     (2 x a card)  (8 x a card)",
    ]
    ((row,),) = (each["fields"] for each in cli(*args, "--json", plugin=False).data["providers"])
    assert [len(each["value"]) for each in row["values"]] == [0, 2, 8]
