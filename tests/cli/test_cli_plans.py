"""Plans in files, made by one process and applied by another."""

from __future__ import annotations

import json
import stat

import pytest

REGISTERED = '{"inference": [{"provider_id": "one", "config": {"url": "http://user"}}]}'
PLUGIN = ("--plugin", "plugin.py")


def test_a_plan_is_made_by_one_process_and_applied_by_another(process, here) -> None:
    made = process(*PLUGIN, "plan", "-o", "plan.json", "--exit-code")
    assert made.code == 3
    assert made.err == "hint: written to plan.json; `stackconf apply plan.json` applies exactly this\n"
    assert stat.S_IMODE((here / "plan.json").stat().st_mode) == 0o600
    applied = process(*PLUGIN, "apply", "plan.json", STACKCONF_ACTOR="ada")
    assert applied.code == 0
    assert applied.err == "plan.json for stack.yaml, revision 0: 2 would join\n"
    assert applied.out.splitlines()[-1] == "revision 0 applied: 2 applied"
    again = process(*PLUGIN, "apply", "plan.json")
    who = "(attempt 1 by ada)"
    assert (again.code, again.out) == (1, "")
    assert again.err.splitlines()[-1] == (
        f"error: the plan is stale: what is applied to inference/one, vector_io/vectors"
        f" changed {who}; plan again"
    )


def test_json_names_the_file_and_what_moved(cli) -> None:
    made = cli("plan", "-o", "plan.json", "--json")
    assert made.data["file"] == "plan.json"
    cli("configurations", "register", REGISTERED)
    moved = cli("apply", "plan.json", "--json")
    assert moved.code == 1
    (told,) = moved.data["moved"]
    assert told.startswith("the revision moved from 0 to 1 (")
    assert told.endswith(": register `default`)")


def test_a_secret_that_moved_is_found_and_not_told(process, here) -> None:
    process(*PLUGIN, "plan", "-o", "plan.json", ACME_TOKEN="canary1")
    ran = process(*PLUGIN, "apply", "plan.json", ACME_TOKEN="canary2")
    assert ran.code == 1
    assert "inference/one would get something else: a secret, or a default of its class, changed" in ran.err
    everything = ran.out + ran.err + (here / "plan.json").read_text(encoding="utf-8")
    assert "canary" not in everything
    assert process(*PLUGIN, "apply", "plan.json", ACME_TOKEN="canary1").code == 0


def test_the_plan_of_another_stack_is_refused(cli, here) -> None:
    cli("plan", "-o", "plan.json")
    (here / "other.yaml").write_text((here / "stack.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    ran = cli("apply", "plan.json", "--stack", "other.yaml")
    assert (ran.code, ran.err) == (1, "error: plan.json is a plan for stack.yaml, not for other.yaml\n")
    (here / "elsewhere").mkdir()
    (here / "other.yaml").rename(here / "elsewhere" / "stack.yaml")
    ran = cli("apply", "plan.json", "--stack", "elsewhere/stack.yaml")
    assert ran.code == 1
    assert ran.err == (
        "error: plan.json is a plan for another stack.yaml, which has another store than this one;"
        " plan again with this one\n"
    )


def test_an_empty_plan_is_nothing_to_do(cli) -> None:
    cli("apply")
    assert cli("plan", "-o", "plan.json").code == 0
    ran = cli("apply", "plan.json")
    assert (ran.code, ran.out) == (0, "nothing to do: what runs is what is configured\n")


def test_a_plan_with_errors_is_not_written(cli, here) -> None:
    text = (here / "stack.yaml").read_text(encoding="utf-8")
    (here / "stack.yaml").write_text(text.replace("config: {}", "config: {size: many}"), encoding="utf-8")
    ran = cli("plan", "-o", "plan.json")
    assert ran.code == 1
    assert ran.err.splitlines()[0] == "error: the plan was not written: the configuration has errors"
    assert ran.err.splitlines()[1].startswith("stack.yaml:15:20: error: vector_io/vectors: config.size: ")
    assert not (here / "plan.json").exists()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("stack.yaml", "is not a plan; a stack file is given with --stack, and `stackconf plan -o FILE` "),
        ("plugin.py", "is not a plan; `stackconf plan -o FILE` writes one"),
        ("plan-as-json", "is not a plan; `stackconf plan -o FILE` writes one"),
        (".", "is a folder, not a plan; "),
        ("gone.json", "No such file or directory"),
        ("cut.json", "is damaged or cut off; plan again"),
        ("edited.json", "was changed after it was written; plan again"),
        ("newer.json", "has format 9 (of stackconf 0.1.0); this stackconf reads format 1: plan again"),
        ("huge.json", "is not a plan: it is larger than 32 MiB"),
    ],
)
def test_what_is_no_plan_is_one_clear_line(cli, here, name, problem) -> None:
    cli("plan", "-o", "plan.json")
    text = (here / "plan.json").read_text(encoding="utf-8")
    (here / "cut.json").write_text(text[:700], encoding="utf-8")
    (here / "edited.json").write_text(text.replace("http://one", "http://two"), encoding="utf-8")
    (here / "newer.json").write_text(text.replace('"format": 1', '"format": 9'), encoding="utf-8")
    (here / "plan-as-json").write_text(cli("plan", "--json").out, encoding="utf-8")
    with (here / "huge.json").open("wb") as huge:
        huge.truncate(100 * 2**20)
    ran = cli("apply", name)
    assert (ran.code, ran.out) == (1, "")
    (line,) = ran.err.splitlines()
    assert line.startswith(f"error: {name}")
    assert problem in line
    said = cli("apply", name, "--json")
    assert (said.code, said.data["error"]) == (1, line.removeprefix("error: "))


def test_out_writes_over_a_plan_and_nothing_else(cli, here) -> None:
    before = (here / "stack.yaml").read_bytes()
    ran = cli("plan", "-o", "stack.yaml")
    assert (ran.code, ran.err) == (1, "error: stack.yaml is there and is not a plan; it was not replaced\n")
    assert (here / "stack.yaml").read_bytes() == before
    assert cli("plan", "-o", "plan.json").code == cli("plan", "-o", "plan.json").code == 0
    assert json.loads((here / "plan.json").read_text(encoding="utf-8"))["stack"] == "stack.yaml"
    assert cli("plan", "-o", "/dev/null").code == 1
