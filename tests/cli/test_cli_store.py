"""`stackconf store` and `inspect --applied`, whatever is damaged."""

from __future__ import annotations

import pytest

STORE = ".stackconf/stack.yaml.sqlite3"
REGISTERED = '{"inference": [{"provider_id": "one", "config": {"url": "http://user"}}]}'


@pytest.fixture
def applied(cli, here):
    """A stack that is applied, and its store."""
    assert cli("configurations", "register", REGISTERED).code == 0
    assert cli("apply").code == 0
    return here / STORE


def test_every_command_closes_the_store(cli, here):
    for command in (f"configurations register {REGISTERED.replace(' ', '')}", "apply", "status", "history"):
        assert cli(*command.split()).code == 0
        assert not (here / f"{STORE}-wal").exists(), command
    assert cli("configurations", "register", REGISTERED, "--name", "n", "--no-assign", "--json").code == 0
    assert not (here / f"{STORE}-wal").exists()


def test_a_sound_store(cli, applied):
    ran = cli("store", "check", plugin=False)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"store {STORE}: sound\n  head       revision 1\n")
    data = cli("store", "check", "--json").data
    assert (data["sound"], data["head"], data["applied"], data["problems"]) == (True, 1, 2, [])
    ran = cli("store", "recover")
    assert (ran.code, ran.err) == (1, f"error: store {STORE} is sound: there is nothing to recover\n")


def test_a_damaged_store_is_one_line_everywhere_and_recovered(cli, here, applied):
    data = applied.read_bytes()
    applied.write_bytes(bytes(100) + data[100:])
    damaged = applied.read_bytes()
    for command in ("inspect", "plan", "apply", "status", "history", "configurations list"):
        ran = cli(*command.split())
        if ran.code == 2:  # there is no such command yet
            continue
        assert ran.code == 1, command
        (line,) = [line for line in ran.err.splitlines() if line.startswith("error")]
        assert line.endswith(
            "file is not a database; `stackconf store recover` moves it aside and saves what can be read"
        )
    checked = cli("store", "check", plugin=False)
    assert checked.code == 1
    assert "hint: `stackconf store recover` saves what can be read" in checked.err
    ran = cli("store", "recover", "--json", plugin=False)
    assert ran.code == 0
    assert (ran.data["head"], ran.data["lost"]) == (1, [])
    assert (here / ran.data["aside"]).read_bytes() == damaged
    assert cli("apply").out == "nothing to do: what runs is what is configured\n"


@pytest.mark.parametrize(
    "stack", [None, "providers: [", "nothing: here"], ids=["missing", "broken", "invalid"]
)
@pytest.mark.parametrize("damaged", [False, True], ids=["sound", "damaged"])
def test_what_is_applied_is_shown_without_a_stack(cli, here, applied, stack, damaged):
    if stack is None:
        (here / "stack.yaml").unlink()
    else:
        (here / "stack.yaml").write_text(stack)
    if damaged:
        applied.write_bytes(b"\0" * 9000)
    ran = cli("inspect", "--applied", plugin=False)
    assert ran.code == 0
    assert "url: http://user" in ran.out
    assert "token: '********'" in ran.out
    assert "s3cret" not in ran.out + ran.err
    assert ("store recover" in ran.err) is damaged
    assert ("stack.yaml.sqlite3.applied.json has" in ran.err) is damaged
    data = cli("inspect", "--applied", "--json", plugin=False).data
    assert data["source"] == ("file" if damaged else "store")
    assert data["applied"]["inference/one"]["revision"] == 1


def test_a_store_that_is_gone_is_not_taken_for_a_new_one(cli, applied):
    for part in ("", "-wal", "-shm"):
        applied.with_name(applied.name + part).unlink(missing_ok=True)
    ran = cli("apply")
    assert ran.code == 1
    assert "is gone, and stack.yaml.sqlite3.applied.json knows what was applied from it" in ran.err
    assert cli("store", "recover").code == 0
    assert cli("plan").code == 0


def test_there_is_no_store(cli, here):
    ran = cli("store", "check", plugin=False)
    assert (ran.code, ran.err) == (1, f"error: store {STORE}: there is none\n")
    (here / "stack.yaml").unlink()
    ran = cli("store", "check", plugin=False)
    assert ran.code == 2
    assert "no store and no stack file here" in ran.err
    ran = cli("inspect", "--applied", "--store", "none.sqlite3", plugin=False)
    assert (ran.code, ran.err) == (0, "hint: nothing is applied\n")
