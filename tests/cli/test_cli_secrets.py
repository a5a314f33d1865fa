"""`stackconf secrets` as a person uses it."""

from __future__ import annotations

import json

import pytest

GIVEN = "inference: [{provider_id: one, config: {token: canary4711}}]"


@pytest.fixture
def keyed(cli, monkeypatch):
    assert cli("secrets", "new-key", "-o", "key").code == 0
    monkeypatch.setenv("STACKCONF_SECRET_KEY_FILE", "key")
    return cli


def test_without_a_key_registering_a_secret_says_both_ways_out(cli, here):
    ran = cli("configurations", "register", "-", stdin=GIVEN)
    assert ran.code == 1
    assert "`${env.NAME}`" in ran.err
    assert "`stackconf secrets new-key -o FILE`" in ran.err
    assert "canary4711" not in ran.err + ran.out
    assert not (here / ".stackconf").exists()


def test_a_key_a_secret_a_rotation_and_the_old_key_gone(keyed, here):
    cli = keyed
    registered = cli("configurations", "register", "-", "--json", stdin=GIVEN)
    reference = registered.data["kept"]["inference"][0]["config"]["token"]
    assert reference.startswith("${sealed:")
    (old,) = cli("secrets", "list", "--json").data["keys"]
    added = cli("secrets", "new-key", "--add-to", "key", "--json").data
    rotated = cli("secrets", "rotate", "--json").data
    assert rotated == {"key": added["id"], "changed": 1, "unchanged": 0}
    assert f"this store needs the key {old} no more" in cli("secrets", "rotate").err
    (here / "key").write_text((here / "key").read_text().splitlines()[0])
    listed = cli("secrets", "list", "--json").data
    assert listed["keys"] == [added["id"]]
    assert listed["references"] == [
        {
            "configuration": "default",
            "provider": "inference/one",
            "path": "config.token",
            "kind": "sealed",
            "reference": reference,
            "key": added["id"],
            "problem": None,
        }
    ]
    assert cli("apply").code == 0
    assert cli("plan", "--exit-code").code == 0
    assert cli("secrets", "drop", "--json").data == {"unused": 0, "lost": 0}


def test_a_secret_is_not_taken_from_the_command_line(keyed, here):
    ran = keyed("configurations", "register", f"{{{GIVEN}}}")
    assert ran.code == 1
    assert "not taken from a command line" in ran.err
    assert "give it in a file, on standard input" in ran.err
    assert "canary4711" not in ran.out + ran.err
    (here / "given.yaml").write_text(GIVEN)
    assert keyed("configurations", "register", "given.yaml").code == 0
    reference = keyed("configurations", "get", "default", "--json").data["providers"]
    assert keyed("configurations", "register", json.dumps(reference)).code == 0


def test_a_lost_key(keyed, monkeypatch):
    cli = keyed
    cli("configurations", "register", "-", stdin=GIVEN)
    monkeypatch.delenv("STACKCONF_SECRET_KEY_FILE")
    ran = cli("plan")
    assert ran.code == 1
    assert "set STACKCONF_SECRET_KEY_FILE to the file that has it" in ran.err
    assert "there is no key here" in cli("secrets", "list").out
    ran = cli("secrets", "rotate")
    assert (ran.code, ran.err.count("error:")) == (1, 1)
    ran = cli("secrets", "drop", "--lost")
    assert (ran.code, ran.out) == (1, "")
    assert "error: no key is here, so every encrypted secret would be dropped" in ran.err
    cli("secrets", "new-key", "-o", "another")
    monkeypatch.setenv("STACKCONF_SECRET_KEY_FILE", "another")
    assert cli("secrets", "drop", "--lost").out == "0 unused secrets dropped\n1 lost secret dropped\n"
    assert "no longer in the store" in cli("secrets", "list").out
    cli("configurations", "unregister", "default")
    assert cli("plan").code == 0


def test_references_are_listed_with_what_is_wrong(cli, here, monkeypatch):
    monkeypatch.delenv("ACME_KEY", raising=False)
    assert "no registered configuration refers" in cli("secrets", "list").err
    given = {"inference": [{"provider_id": "one", "config": {"token": "${env.ACME_KEY}"}}]}
    cli("configurations", "register", json.dumps(given))
    assert "`ACME_KEY` is not set, or empty; set it" in cli("secrets", "list").out
    monkeypatch.setenv("ACME_KEY", "canary4711")
    ran = cli("secrets", "list")
    assert "can be resolved" in ran.out
    assert "canary4711" not in ran.out + ran.err


def test_a_key_replaces_nothing(cli, here):
    assert cli("secrets", "new-key", "-o", "key").code == 0
    before = (here / "key").read_text()
    ran = cli("secrets", "new-key", "-o", "key")
    assert (ran.code, ran.out) == (1, "")
    assert before.strip() not in ran.err
    assert cli("secrets", "new-key", "-o", "key", "--add-to", "key").code == 2
    assert (here / "key").read_text() == before
    printed = cli("secrets", "new-key")
    assert len(printed.out.strip()) == 44
    assert printed.err == ""
