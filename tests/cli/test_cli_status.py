"""`stackconf status`: what is wanted, tried and running, and what a killed apply left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from cli_kit import PROGRAM
from test_cli_stack import edit


def started(here) -> subprocess.Popen[bytes]:
    """An apply in a process of its own that is at work on a slow provider."""
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, "--plugin", "plugin.py", "apply"])
    until = time.monotonic() + 30
    while not (here / "applying").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    return child


def killed_while_applying(here) -> None:
    child = started(here)
    child.send_signal(signal.SIGKILL)
    child.wait(20)


def test_wanted_tried_and_running_are_three_things(cli, here) -> None:
    ran = cli("status", "--exit-code")
    assert ran.code == 3
    assert "inference/one      to apply  0       -      -          -" in ran.out.splitlines()
    assert cli("apply").code == 0
    assert cli("status", "--exit-code").code == 0
    edit(here, "config: {}", "config: {size: 13}")
    edit(here, "http://one", "http://other")
    assert cli("apply").code == 1
    ran = cli("status")
    assert ran.code == 0
    assert (
        "vector_io/vectors: tried revision 0 in attempt 2, failed: apply_config of plugin"
        " `plugin.py` raised ValueError: refused by http://me:********@server/;"
        " now it runs with what it had (revision 0)"
    ) in ran.out.splitlines()
    assert "rolled back, 20" in ran.out
    assert "stackconf plan" in ran.err
    data = cli("status", "--json").data
    assert [(each["provider"], each["state"], each["tried"]["state"]) for each in data["providers"]] == [
        ("inference/one", "to apply", "rolled_back"),
        ("vector_io/vectors", "to apply", "failed"),
    ]


def test_an_apply_that_runs_and_one_that_was_killed_are_said(cli, here) -> None:
    edit(here, "http://one", "http://slow")
    child = started(here)
    assert "an apply is running by" in cli("status").err
    data = cli("status", "--json").data
    assert (data["running"]["pid"], data["providers"][0]["state"]) == (child.pid, "applying")
    assert "inference/one      applying  0       -      -?" in cli("status").out
    child.send_signal(signal.SIGKILL)
    child.wait(20)
    ran = cli("status")
    assert "inference/one      unknown   0       -      -?" in ran.out
    assert "warning: attempt 1 of " in ran.err
    assert "was killed when it had touched 1 provider" in ran.err
    data = cli("status", "--json").data
    assert (data["running"], data["cut_off"]["touched"]) == (None, ["inference/one"])


def test_recover_gives_back_what_there_was_and_apply_goes_on_instead(cli, here) -> None:
    assert cli("apply").code == 0
    assert cli("recover").out == "nothing to take back: it is known what every provider runs with\n"
    edit(here, "http://one", "http://slow")
    killed_while_applying(here)
    ran = cli("plan")
    assert "~ inference/one (remote::acme) is in an unknown state, and is applied anew" in ran.out
    assert "null ->" not in ran.out
    assert cli("plan", "--json").data["changes"][0]["known"] is False
    ran = cli("recover")
    assert (ran.code, ran.out.splitlines()[-2:]) == (
        0,
        [
            "what was applied before is back: 1 applied",
            "attempt 2 had been killed; what it had touched was gone through again",
        ],
    )
    assert "as it was before" in ran.out
    one = cli("status", "--json").data["providers"][0]
    assert (one["state"], one["tried"]["state"]) == ("to apply", "restored")
    assert cli("history", "--json").data["attempts"][0]["state"] == "restored"
    assert cli("history").err == "hint: nothing was ever registered\n"
    edit(here, "http://slow", "http://quick")
    assert cli("apply", "--json").data["took_over"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_an_apply_that_is_told_to_end_takes_back_what_it_did(cli, here, number) -> None:
    assert cli("apply").code == 0
    edit(here, "config: {}", "config: {size: 2}")
    edit(here, "http://one", "http://slow")
    child = started(here)
    child.send_signal(number)
    assert child.wait(20) == 130
    data = cli("status", "--json").data
    assert data["cut_off"] is None
    assert data["providers"][0]["tried"]["state"] == "unknown"


def test_a_second_apply_is_refused_by_name_or_waits(cli, here) -> None:
    edit(here, "http://one", "http://slow")
    child = started(here)
    ran = cli("apply")
    assert ran.code == 1
    assert f"(process {child.pid}); wait for it to end" in ran.err
    child.send_signal(signal.SIGKILL)
    edit(here, "http://slow", "http://one")
    ran = cli("apply", "--wait", "20")
    child.wait(20)
    assert (ran.code, ran.err.count("error")) == (0, 0)


def test_what_is_pending_is_tried_for_so_long(cli, here) -> None:
    edit(here, "http://one", "http://down")
    ran = cli("apply", "--keep-trying", "0.2")
    assert ran.code == 1
    assert "error: still pending after 0.2 s: inference/one" in ran.err
    ran = cli("apply", "--events", "--keep-trying", "1")
    assert ran.code == 2
