"""Wrong usage, wrong input, interruptions: one clear line, the right code, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from cli_kit import PROGRAM

from stackconf._version import __version__


def test_version(cli) -> None:
    assert cli("--version", plugin=False).out == f"stackconf {__version__}\n"
    assert cli("--version", "--json").out == f"stackconf {__version__}\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["inspct"], "no such command `inspct`; did you mean `inspect`?"),
        (["configurations", "lst"], "no such command `lst`; did you mean `list`?"),
        (["plan", "--jsn"], "no such option `--jsn`; did you mean `--json`?"),
        (["configurations", "register"], "give a configuration: --config FILE"),
        (["configurations", "register", "a.yaml", "--config", "b.yaml"], "give one configuration"),
        (["explain"], "missing argument 'PROVIDER'"),
        (["completion", "csh"], "'csh' is not one of"),
        (["plan", "--color", "maybe"], "'maybe' is not one of"),
    ],
)
def test_wrong_usage_is_2_with_advice(cli, args, message) -> None:
    ran = cli(*args)
    assert (ran.code, ran.out) == (2, "")
    first, hint = ran.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert hint.startswith("hint: `stackconf ")


def test_wrong_usage_is_json_where_json_was_asked_for(cli) -> None:
    ran = cli("plan", "--jsn", "--json")
    assert ran.code == 2
    assert ran.data["error"] == "no such option `--jsn`; did you mean `--json`?"
    assert ran.data["issues"] == []


@pytest.mark.parametrize("args", [[], ["configurations"], ["plugins"]])
def test_no_command_shows_help_as_wrong_usage(cli, args) -> None:
    ran = cli(*args, plugin=False)
    assert (ran.code, ran.out) == (2, "")
    assert "Usage: stackconf" in ran.err


def test_no_stack_file_is_wrong_usage(cli, here) -> None:
    (here / "stack.yaml").unlink()
    ran = cli("plan")
    assert ran.code == 2
    assert "no stack file: none of stack.yaml, run.yaml, config.yaml is here" in ran.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no file `bad.yaml`"),
        (b"", "bad.yaml:1:1: error: the file is empty"),
        (b"providers: [\n", "bad.yaml:2:1: error: not valid YAML"),
        (b"version: 2\n\xff\n", "bad.yaml:2:1: error: byte 0xff is not UTF-8"),
        (b"- 1\n", "bad.yaml:1:1: error: a stack file is a mapping"),
    ],
)
@pytest.mark.parametrize("command", [["plan"], ["inspect"], ["apply"], ["check"], ["explain", "x"]])
def test_a_file_that_cannot_be_read_is_one_line_and_1(cli, here, content, says, command) -> None:
    if content is not None:
        (here / "bad.yaml").write_bytes(content)
    ran = cli(*command, *(["bad.yaml"] if command == ["check"] else ["-s", "bad.yaml"]))
    assert ran.code == 1
    assert says in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_defect_is_one_line_and_a_traceback_only_on_request(cli, monkeypatch) -> None:
    import stackconf.stack

    def defective(*_args, **_options):
        raise ZeroDivisionError("at http://me:hunter2@host")

    monkeypatch.setattr(stackconf.stack.Stack, "open", defective)
    ran = cli("plan")
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "error: ZeroDivisionError: at http://me:********@host",
        "hint: this is a defect of stackconf; run with STACKCONF_TRACEBACK=1 to see where",
    ]
    assert cli("plan", "--json").data["error"].startswith("ZeroDivisionError")
    monkeypatch.setenv("STACKCONF_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli("plan")


def test_a_plugin_that_cannot_be_loaded_is_a_warning(cli, here) -> None:
    (here / "bad.py").write_text("import no_such_module_anywhere\n", encoding="utf-8")
    ran = cli("inspect", "--plugin", "bad.py")
    assert ran.code == 0
    assert ran.err.startswith("warning: plugin `bad.py`: cannot be imported: ModuleNotFoundError")


def test_a_plugin_file_that_hangs_is_one_line(process, here) -> None:
    (here / "hang.py").write_text("import time; time.sleep(60)\n", encoding="utf-8")
    ran = process("plan", "--plugin", "hang.py", STACKCONF_HOOK_TIMEOUT="0.5", STACKCONF_PROBE_TIMEOUT="0.5")
    assert (ran.code, ran.err) == (
        1,
        "error: plugin `hang.py`: its import did not come back within 0.5 s\n",
    )


def test_a_store_that_cannot_be_opened_is_one_line(cli, here) -> None:
    ran = cli("configurations", "list", "--store", "plugin.py")
    assert ran.code == 1
    assert ran.err.startswith("error: store plugin.py is damaged: file is not a database; ")
    assert ran.err.count("\n") == 1


def test_whoever_reads_may_stop_reading(here) -> None:
    listing = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "plan", "--plugin", "plugin.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    listing.stdout.close()
    said = listing.stderr.read()
    listing.stderr.close()
    assert listing.wait(30) == 141
    assert said == b""


def test_control_c_takes_an_apply_back_and_is_130(here) -> None:
    stack = here / "stack.yaml"
    stack.write_text(stack.read_text(encoding="utf-8").replace("http://one", "http://slow"), encoding="utf-8")
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "apply", "--plugin", "plugin.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert b"would join" in running.stderr.readline()
    while not (here / "applying").exists():
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert out == b""
    assert said.startswith(b"interrupted; taken back: nothing")
    assert b"Traceback" not in said


def test_a_number_is_asked_for_in_plain_words(cli, here) -> None:
    assert "'x' is not a whole number" in cli("rollback", "1", "--expect-revision", "x").err
    assert "'x' is not a number" in cli("apply", "--keep-trying", "x").err
