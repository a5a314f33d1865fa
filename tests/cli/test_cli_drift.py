"""`stackconf drift`, and a sealed stack, as a user meets them."""

from __future__ import annotations

import json

from test_cli_stack import edit

MINE = '{"inference": [{"provider_id": "one", "config": {"url": "http://user"}}]}'
SEAL = "\nstackconf: {sealed: true}\n"


def seal(here) -> None:
    file = here / "stack.yaml"
    file.write_text(file.read_text(encoding="utf-8") + SEAL, encoding="utf-8")


def test_drift_names_the_configuration_that_made_it(cli, monkeypatch) -> None:
    monkeypatch.setenv("STACKCONF_ACTOR", "ada")
    ran = cli("drift", "--exit-code")
    assert ran.code == 3
    assert "stack.yaml: 2 not applied" in ran.out
    assert cli("configurations", "register", MINE, "--name", "mine").code == 0
    assert cli("apply").code == 0
    ran = cli("drift")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        "inference/one (remote::acme) differs from the files (applied at revision 1)",
        "    field  applied      the files say  why",
        "    url    http://user  http://one     configuration `mine` (revision 1, by ada)",
        "",
        "stack.yaml: 1 differs; 1 provider as the files say",
    ]
    assert "as the files say: vector_io/vectors" in cli("drift", "--verbose").out
    (provider,) = cli("drift", "--json").data["providers"]
    (field,) = provider["fields"]
    assert (field["path"], field["applied"], field["file"]) == ("url", "http://user", "http://one")
    assert (field["configuration"], field["revision"], field["actor"]) == ("mine", 1, "ada")
    assert cli("configurations", "unassign", "mine").code == 0
    assert cli("apply").code == 0
    ran = cli("drift", "--exit-code")
    assert (ran.code, ran.out) == (0, "stack.yaml: nothing drifted; 2 providers as the files say\n")


def test_a_file_that_no_longer_validates_is_an_error_and_the_rest_is_compared(cli, here) -> None:
    assert cli("apply").code == 0
    edit(here, "config: {}", "config: {size: big}")
    edit(here, "http://one", "http://two")
    ran = cli("drift", "--exit-code")
    assert ran.code == 1
    assert "url    http://one  http://two" in ran.out
    assert "the stack file changed since; the files say it at stack.yaml:8:12" in ran.out
    assert "vector_io/vectors (inline::acme) cannot be compared" in ran.out
    assert "error: vector_io/vectors: config.size" in ran.err
    assert "s3cret" not in ran.out + ran.err


def test_a_sealed_stack_refuses_in_one_line_and_shows_what_changes_back(cli, here) -> None:
    assert cli("configurations", "register", MINE, "--name", "mine").code == 0
    assert cli("apply").code == 0
    seal(here)
    for arguments in (["register", MINE], ["assign", "mine"], ["unassign", "mine"], ["unregister", "mine"]):
        ran = cli("configurations", *arguments)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err == "error: the stack is sealed: stack.yaml is its only truth; change it there\n"
        ran = cli("configurations", *arguments, "--json")
        assert (ran.code, json.loads(ran.out)["error"][:19]) == (1, "the stack is sealed")
    assert cli("configurations", "list").code == 0
    assert "url: http://one" in cli("inspect").out
    ran = cli("plan")
    assert ran.code == 0
    assert "url: http://user -> http://one" in ran.out
    assert "ignored: configuration `mine` (revision 1) does not count: the stack is sealed" in ran.err
    assert "configuration `mine` (revision 1" in cli("drift").out
    assert cli("apply").code == 0
    assert cli("drift", "--exit-code").code == 0
