"""`stackconf status`: what is wanted, tried and running, and what a killed apply left."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from cli_kit import PROGRAM
from test_cli_stack import edit


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
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, "--plugin", "plugin.py", "apply"])
    until = time.monotonic() + 30
    while not (here / "applying").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "an apply is running by" in cli("status").err
    assert cli("status", "--json").data["running"]["pid"] == child.pid
    child.send_signal(signal.SIGKILL)
    child.wait(20)
    ran = cli("status")
    assert "inference/one      unknown   0       -      -?" in ran.out
    assert "warning: attempt 1 of " in ran.err
    assert "was killed when it had touched 1 provider" in ran.err
    data = cli("status", "--json").data
    assert (data["running"], data["cut_off"]["touched"]) == (None, ["inference/one"])
