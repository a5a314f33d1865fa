"""history, show, diff and rollback as people call them; and a change that came second."""

from __future__ import annotations

import json
import re

import pytest
import yaml


def config(**values) -> str:
    return json.dumps({"inference": [{"provider_id": "one", "config": values}]})


@pytest.fixture
def register(cli, monkeypatch):
    def run(*args: str, actor: str = "me", **values):
        monkeypatch.setenv("STACKCONF_ACTOR", actor)
        return cli("configurations", "register", config(**values), *args)

    return run


WHEN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+"


def test_history_of_nothing_says_so(cli):
    ran = cli("history", "--attempts")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err.splitlines() == ["hint: nothing was ever registered", "hint: nothing was ever applied"]
    assert cli("history", "--json").data == {"oldest": 1, "applied": None, "revisions": [], "attempts": []}
    assert cli("show").err == "revision 0: nothing was registered yet\n"


def test_history_tells_who_when_and_what(cli, register, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    register(actor="ada", url="http://a")
    register(actor="bob", url="http://b")
    cli("rollback", "1")
    lines = cli("history").out.splitlines()
    assert lines[0].split() == ["revision", "when", "by", "change"]
    assert [re.sub(WHEN, "WHEN", line).split(None, 3) for line in lines[1:]] == [
        ["3", "WHEN", "bob", "rollback to 1"],
        ["2", "WHEN", "bob", "register `default`"],
        ["1", "WHEN", "ada", "register `default`"],
    ]
    (only,) = cli("history", "--limit", "1", "--json").data["revisions"]
    assert (only["revision"], only["restores"], only["at"][-1]) == (3, 1, "Z")


def test_an_attempt_that_failed_stays_visible(cli, register):
    register(url="http://a")
    cli("apply")
    register(url="http://fail")
    cli("apply")
    ran = cli("history")
    assert "hint: tried 2, failed because inference/one: apply_config" in ran.err
    assert "; now 1; --attempts" in ran.err
    shown = cli("history", "--attempts").out
    assert "refused by http://me:********@server/; now 1" in shown
    assert "hunter2" not in shown + ran.err
    failed, applied = cli("history", "--json").data["attempts"]
    assert (failed["state"], failed["provider"], failed["now"]) == ("failed", "inference/one", 1)
    assert (applied["state"], applied["provider"], applied["error"]) == ("applied", None, None)


def test_show_prints_what_was_registered(cli, register):
    register(url="http://a", token="${env.TOK}")
    register("--name", "night", "--no-assign", threads=2)
    ran = cli("show", "-1")
    assert "revision 1: register `default`, by me" in ran.err
    assert yaml.safe_load(ran.out) == {
        "assigned": ["default"],
        "configurations": {
            "default": {
                "inference": [
                    {
                        "provider_id": "one",
                        "provider_type": "remote::acme",
                        "config": {"url": "http://a", "token": "${env.TOK}"},
                    }
                ]
            }
        },
    }
    assert yaml.safe_load(cli("show").out)["assigned"] == ["default"]
    assert len(cli("show", "head", "--json").data["configurations"]) == 2


@pytest.mark.parametrize("command", ["show", "diff", "rollback"])
@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("7", "no revision 7; the newest is 1"),
        ("-7", "no revision `head-7`: the head is 1"),
        ("nothing", "no revision `nothing`; say a number, `head`, or `head-1` for the one before"),
    ],
)
def test_a_revision_that_is_not_there_is_one_line(cli, register, command, given, told):
    register(url="http://a")
    ran = cli(command, given)
    assert (ran.code, ran.out, ran.err) == (1, "", f"error: {told}\n")
    assert cli(command, given, "--json").data["error"] == told


def test_diff_tells_what_changed(cli, register):
    register(url="http://a", threads=2)
    register(url="http://b", threads=2)
    register("--name", "night", threads=3)
    assert cli("diff", "1").out.splitlines() == [
        "~ default: changed",
        "    inference/one",
        "      ~ url: http://a -> http://b",
        "+ night: added, assigned",
        "    inference/one",
        "      + threads: 3",
    ]
    assert cli("diff", "2", "2").out == "revisions 2 and 2 say the same\n"
    lines = cli("diff", "-1", "--effective").out.splitlines()
    assert lines[-3:] == ["effective", "    inference/one", "      ~ threads: 2 -> 3"]
    data = cli("diff", "3", "2", "--effective", "--json").data
    assert (data["before"], data["after"], data["unresolved"]) == (3, 2, [])
    (gone,) = data["configurations"]
    assert (gone["change"], gone["assignment"], gone["before"], gone["after"]) == (
        "removed",
        "unassigned",
        2,
        None,
    )
    assert gone["fields"] == [{"provider": "inference/one", "path": "threads", "before": 3}]
    assert data["effective"][0]["fields"][0]["after"] == 2


def test_rollback_restores_and_applies(cli, register):
    register(url="http://a")
    cli("apply")
    register(url="http://b")
    cli("apply")
    ran = cli("rollback", "1", "--apply", "--expect-revision", "2")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[0] == "restored revision 1 as revision 3"
    assert lines[1].startswith("applied  inference/one")
    assert lines[2] == "revision 3 applied: 1 applied"
    again = cli("rollback", "1")
    assert again.out == "nothing to restore: the head, revision 3, says the same\n"
    data = cli("rollback", "2", "--apply", "--json").data
    assert (data["revision"], data["restores"], data["changed"]) == (4, 2, True)
    assert data["report"]["state"] == "applied"
    assert cli("rollback", "0", "--json").data["plan"]["changes"]


def test_a_rollback_that_cannot_be_applied_says_what_is_the_head_now(cli, register):
    register(url="http://fail")
    register(url="http://b")
    ran = cli("rollback", "1", "--apply")
    assert ran.code == 1
    assert "restored revision 1 as revision 3" in ran.out
    assert "the apply failed, and nothing of it was kept" in ran.err
    register("--name", "token", token="${env.NO_SUCH_TOKEN}")
    register("--name", "token", url="http://c")
    refused = cli("rollback", "-1", "--apply", "--json")
    assert refused.code == 1
    assert "hint: the head is revision 6 now, and is not applied" in refused.err


def test_a_sealed_stack_refuses_a_rollback(cli, register, here):
    register(url="http://a")
    file = here / "stack.yaml"
    file.write_text(file.read_text(encoding="utf-8") + "stackconf: {sealed: true}\n", encoding="utf-8")
    ran = cli("rollback", "0")
    assert (ran.code, ran.err.split(":")[:2]) == (1, ["error", " the stack is sealed"])


def test_a_change_that_came_second_shows_who_was_first(cli, register):
    register(actor="ada", url="http://a", threads=2)
    register(actor="bob", url="http://b", threads=2)
    ran = register("--expect-revision", "1", url="http://c", threads=2)
    lines = ran.err.splitlines()
    assert (ran.code, ran.out) == (1, "")
    assert lines[0] == (
        "error: expected revision 1, but the head is 2;"
        " 1 field of `default` changed meanwhile to something else than yours"
    )
    assert re.fullmatch(f"  revision 2: register `default`, by bob, {WHEN}", lines[1])
    assert lines[2:] == [
        "    inference/one: url: http://a -> http://b; you say http://c",
        "hint: --force replaces what others changed; or read it and try again",
    ]
    data = register("--expect-revision", "1", "--json", url="http://c").data
    assert (data["expected"], data["head"]) == (1, 2)
    assert [each["actor"] for each in data["since"]] == ["bob"]
    (field,) = data["conflicts"]
    assert (field["path"], field["before"], field["theirs"], field["mine"], field["clashes"]) == (
        "url",
        "http://a",
        "http://b",
        "http://c",
        True,
    )


def test_a_change_that_came_second_can_be_merged_or_forced(cli, register):
    register(url="http://a", threads=2)
    register(url="http://b", threads=2)
    refused = register("--expect-revision", "1", url="http://a", threads=3)
    assert refused.err.splitlines()[-1].startswith("hint: --retry merges; --force replaces")
    assert register("--expect-revision", "1", "--retry", url="http://a", threads=3).code == 0
    got = yaml.safe_load(cli("configurations", "get", "default").out)["providers"]["inference"][0]["config"]
    assert got == {"url": "http://b", "threads": 3}
    assert register("--expect-revision", "1", "--retry", url="http://c").code == 1
    assert register("--expect-revision", "1", "--force", url="http://c").code == 0
    for word in ("unassign", "assign", "unregister"):
        assert cli("configurations", word, "default", "--expect-revision", "4").code == (word != "unassign")
    assert cli("configurations", "assign", "default", "--expect-revision", "4", "--retry").code == 0
    assert cli("configurations", "unregister", "default", "--expect-revision", "4", "--retry").code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--retry"], "--retry is for when the head is not the revision that you expect; give"),
        (["--force"], "--force is for when the head is not the revision that you expect; give"),
        (["--retry", "--force", "--expect-revision", "1"], "give --retry or --force, not both"),
    ],
)
def test_retry_and_force_are_about_an_expected_revision(register, options, told):
    ran = register(*options, url="http://a")
    assert ran.code == 2
    assert f"error: {told}" in ran.err


def test_a_rollback_that_came_second_is_not_merged(cli, register):
    register(url="http://a")
    register(url="http://b")
    ran = cli("rollback", "0", "--expect-revision", "1")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "hint: without --expect-revision it is done all the same"


def test_prune_forgets_and_says_what(cli, register):
    for number in range(4):
        register(threads=number + 1)
    cli("apply")
    register(threads=9)
    register(threads=10)
    ran = cli("history", "prune", "--keep", "1")
    assert ran.out == "4 revisions and 0 attempts forgotten; the oldest kept is revision 6\n"
    assert ran.err == "hint: kept besides, being applied: 4\n"
    assert cli("history", "prune", "--keep", "1").out.startswith("nothing to forget")
    assert "hint: revisions before 6 were pruned" in cli("history").err
    assert cli("show", "2").err == "error: revision 2 was pruned; the oldest kept is 6\n"
    data = cli("history", "prune", "--keep", "1", "--json").data
    assert data == {"oldest": 6, "revisions": 0, "documents": 0, "attempts": 0, "pinned": [4]}


@pytest.mark.parametrize(
    "args",
    [
        ("history", "prune"),
        ("history", "prune", "--keep", "0"),
        ("history", "--limit", "0"),
        ("history", "pruen"),
        ("history", "--limit", "1", "prune", "--keep", "1"),
        ("diff",),
        ("rollback",),
    ],
)
def test_wrong_usage_is_told(cli, args):
    ran = cli(*args)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
