"""`stackconf export`, as a user meets it."""

from __future__ import annotations

import json

import yaml
from cli_kit import STACK
from test_cli_stack import edit

MINE = '{"inference": [{"provider_id": "one", "config": {"url": "http://user"}}]}'


def test_to_standard_output_goes_the_file_and_nothing_else(cli) -> None:
    assert cli("configurations", "register", MINE).code == 0
    ran = cli("export")
    assert ran.code == 0
    assert ran.out == STACK.replace("http://one", "http://user").replace(
        "      token: ${env.ACME_TOKEN:=s3cret}\n", "      token: ${env.ACME_TOKEN}\n      threads: 4\n"
    )
    assert ran.err == (
        "hint: set `ACME_TOKEN` where the file is read: a secret, whose default is not copied"
        " (inference/one: config.token)\n"
    )


def test_in_place_only_what_must_is_changed(cli, here) -> None:
    assert cli("configurations", "register", MINE, "--name", "mine").code == 0
    ran = cli("export", "--in-place", "-v")
    assert (ran.code, ran.out) == (0, "")
    warning, *rest = ran.err.splitlines()
    assert warning == (
        "stack.yaml:9:14: warning: inference/one: config.token: a secret stands here in the clear, and is"
        " left as it is; write a reference, `${env.NAME}`"
    )
    assert rest == [
        "inference/one: config.threads: 4 (hardware)",
        "inference/one: config.url: http://user (configuration `mine`)",
        "stack.yaml: 2 values written in 1 provider",
        "hint: the file says it now, so `mine` may be unassigned",
    ]
    after = (here / "stack.yaml").read_text(encoding="utf-8")
    assert after == STACK.replace("http://one", "http://user").replace(
        "s3cret}\n", "s3cret}\n      threads: 4\n"
    )
    ran = cli("export", "--in-place")
    assert "stack.yaml: nothing had to change" in ran.err
    assert (here / "stack.yaml").read_text(encoding="utf-8") == after


def test_to_a_file_and_as_json(cli, here) -> None:
    assert cli("configurations", "register", MINE, "--name", "mine").code == 0
    ran = cli("export", "-o", "new.yaml")
    assert (ran.code, ran.out) == (0, "")
    assert "new.yaml: 2 values written in 1 provider" in ran.err
    text = (here / "new.yaml").read_text(encoding="utf-8")
    assert cli("export").out == text
    data = cli("export", "--json").data
    assert (data["file"], data["text"]) == (None, text)
    assert [each["name"] for each in data["variables"]] == ["ACME_TOKEN"]
    assert {"provider": "inference/one", "path": "config.threads", "value": 4, "source": "hardware"} in data[
        "changes"
    ]
    assert (here / "stack.yaml").read_text(encoding="utf-8") == STACK


def test_all_writes_the_defaults_of_the_classes(cli) -> None:
    (entry, _) = yaml.safe_load(cli("export", "--all").out)["providers"]["inference"]
    assert entry["config"] == {
        "url": "http://one",
        "token": "${env.ACME_TOKEN}",
        "threads": 4,
        "mode": "plain",
    }


def test_what_is_applied_is_there_when_the_file_is_not_valid_any_more(cli, here) -> None:
    ran = cli("export", "--applied")
    assert (ran.code, ran.err) == (1, "error: nothing was exported: nothing is applied\n")
    assert cli("configurations", "register", MINE).code == 0
    assert cli("apply").code == 0
    edit(here, "url: http://one", "url: http://one\n      mode: [x]")
    ran = cli("export")
    assert (ran.code, ran.out) == (1, "")
    assert "error: nothing was exported: 1 error in the configuration" in ran.err
    ran = cli("export", "--applied", "--in-place")
    assert ran.code == 0
    after = (here / "stack.yaml").read_text(encoding="utf-8")
    assert "url: http://user\n      mode: plain\n" in after
    assert cli("check").code == 0


def test_wrong_usage_and_wrong_places(cli, here) -> None:
    ran = cli("export", "-o", "x.yaml", "--in-place")
    assert (ran.code, ran.err.splitlines()[0]) == (2, "error: give -o FILE or --in-place, not both")
    ran = cli("export", "-o", "no/such/folder.yaml")
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert "no/such/folder.yaml" in ran.err
    ran = cli("export", "-o", ".", "--json")
    assert ran.code == 1
    assert "is a folder" in json.loads(ran.out)["error"]
    (here / "notes.txt").write_text("dear diary\n", encoding="utf-8")
    ran = cli("export", "-o", "notes.txt")
    assert ran.code == 1
    assert (here / "notes.txt").read_text(encoding="utf-8") == "dear diary\n"
