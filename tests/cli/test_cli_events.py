"""Progress of an apply: lines for programs, a running line for people, in real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import PROGRAM
from test_cli_output import sent_to_terminal

from stackconf.store.sqlite import SqliteStore

COMMAND = (sys.executable, "-c", PROGRAM, "--plugin", "plugin.py", "apply")


@pytest.fixture
def slow(here):
    """Each provider takes a while, and the second one looks before whether the first is done."""
    source = (here / "plugin.py").read_text(encoding="utf-8")
    source = source.replace(
        '    if "slow" in url:',
        '    time.sleep(float(getattr(config, "size", 0)) / 10)\n    if "slow" in url:',
    )
    (here / "plugin.py").write_text(source, encoding="utf-8")
    edit(here, "config: {}", "config: {size: 14}")
    return here


def edit(here, old: str, new: str) -> None:
    file = here / "stack.yaml"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def events_of(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def applied(here) -> bool:
    """Whether the store knows both providers to be applied."""
    with closing(SqliteStore(here / ".stackconf" / "stack.yaml.sqlite3")) as store:
        states = {key: status.state for key, status in store.status().items()}
    return states == {"inference/one": "applied", "vector_io/vectors": "applied"}


def test_events_are_lines_of_json_and_the_last_is_the_report(cli) -> None:
    ran = cli("apply", "--events")
    assert ran.code == 0
    assert ran.err == "stack.yaml, revision 0: 2 would join\n"
    *steps, report = events_of(ran.out)
    assert [
        (each["event"], each["provider"], each["step"], each["position"], each["total"]) for each in steps
    ] == [
        ("begin", "inference/one", "apply", 1, 2),
        ("end", "inference/one", "apply", 1, 2),
        ("begin", "vector_io/vectors", "apply", 2, 2),
        ("end", "vector_io/vectors", "apply", 2, 2),
    ]
    assert [type(each.get("seconds")) for each in steps] == [type(None), float, type(None), float]
    assert (report.pop("event"), report["state"]) == ("report", "applied")
    again = cli("apply", "--json").data
    assert report.keys() == again.keys()
    assert events_of(cli("apply", "--events").out) == [{"event": "report", **again}]


def test_a_failed_apply_tells_what_was_taken_back(cli, here) -> None:
    edit(here, "config: {}", "config: {size: 13}")
    ran = cli("apply", "--events")
    assert ran.code == 1
    *steps, report = events_of(ran.out)
    assert [each["event"] for each in steps] == ["begin", "end"] * 3
    assert (steps[-1]["provider"], steps[-1]["step"], steps[-1]["position"]) == ("inference/one", "undo", 1)
    assert (report["event"], report["state"]) == ("report", "failed")
    assert "hunter2" not in ran.out + ran.err


def test_what_is_refused_is_an_event_too(cli, here) -> None:
    cli("plan", "-o", "plan.json")
    edit(here, "http://one", "http://two")
    ran = cli("apply", "plan.json", "--events")
    assert ran.code == 1
    (event,) = events_of(ran.out)
    assert (event["event"], event["moved"]) == ("error", ["the stack file changed"])
    assert f"error: {event['error']}\n" in ran.err
    edit(here, "config: {}", "config: {size: many}")
    (event,) = events_of(cli("apply", "--events").out)
    assert event["issues"][0]["path"] == "config.size"
    both = cli("apply", "--events", "--json")
    assert both.code == 2


def test_each_event_is_there_as_it_happens(slow) -> None:
    with subprocess.Popen(
        [*COMMAND, "--events"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as running:
        lines = [(json.loads(line), time.monotonic()) for line in running.stdout]
    begun, ended = lines[2], lines[3]
    assert (begun[0]["event"], begun[0]["provider"]) == ("begin", "vector_io/vectors")
    assert ended[0]["seconds"] >= 1.4
    assert ended[1] - begun[1] > 1.0


def test_a_reader_that_goes_away_does_not_stop_the_apply(slow, here) -> None:
    running = subprocess.Popen([*COMMAND, "--events"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert json.loads(running.stdout.readline())["event"] == "begin"
    running.stdout.close()
    said = running.stderr.read()
    running.stderr.close()
    assert running.wait(30) == 141
    assert said == b"stack.yaml, revision 0: 2 would join\n"
    assert applied(here)


def test_the_reader_of_a_plain_apply_may_go_away_too(slow, here) -> None:
    running = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    running.stdout.close()
    assert running.stderr.readline() == b"stack.yaml, revision 0: 2 would join\n"
    running.stderr.close()
    assert running.wait(30) == 141
    assert applied(here)


def test_a_reader_that_does_not_read_does_not_hold_the_apply_up(here) -> None:
    """The pipe is full before the first event."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    filled = 0
    try:
        while True:
            filled += os.write(theirs, b"\n" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(theirs, True)
    running = subprocess.Popen([*COMMAND, "--events"], stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    until = time.monotonic() + 30
    while not applied(here):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert running.poll() is None  # it still has something to say
    with os.fdopen(ours, "rb") as reader:
        events = events_of(reader.read()[filled:].decode())
    assert running.wait(30) == 0
    assert [each["event"] for each in events] == ["begin", "end", "begin", "end", "report"]


def test_a_full_disk_is_said_after_the_apply(here) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [*COMMAND, "--events"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert ran.returncode == 1
    assert ran.stderr.decode().splitlines()[-1] == "error: No space left on device"
    assert applied(here)


def test_control_c_takes_it_back_and_says_so_as_an_event(here) -> None:
    edit(here, "http://one", "http://slow")
    running = subprocess.Popen([*COMMAND, "--events"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (here / "applying").exists():
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert events_of(out.decode())[-1] == {"event": "error", "error": "interrupted", "issues": []}
    assert b"Traceback" not in said


def test_what_a_plugin_prints_does_not_come_between_the_events(here, process) -> None:
    source = (here / "plugin.py").read_text(encoding="utf-8")
    source = source.replace("    if config is None:", '    print("loud")\n    if config is None:')
    (here / "plugin.py").write_text(source, encoding="utf-8")
    ran = process("--plugin", "plugin.py", "apply", "--events")
    assert len(events_of(ran.out)) == 5
    assert ran.err.count("loud\n") == 2


def drawn(shown: str) -> list[str]:
    """What the running line said, without its turning sign."""
    return [re.sub(r"^[|/\\-] ", "", part) for part in re.findall(r"\r\x1b\[K([^\r\n]+)", shown)]


def test_on_a_terminal_a_line_says_which_provider_of_how_many_what_and_how_long(slow) -> None:
    shown = sent_to_terminal(100, "apply", NO_COLOR="1")
    lines = drawn(shown)
    assert "applying vector_io/vectors (2 of 2) (0 s)" in lines
    assert "applying vector_io/vectors (2 of 2) (1 s)" in lines
    assert shown.splitlines()[-1] == "revision 0 applied: 2 applied"
    assert not [line for line in shown.splitlines()[-3:] if "applying" in line.rpartition("\x1b[K")[2]]


def test_the_line_fits_a_narrow_terminal_and_keeps_the_seconds(slow) -> None:
    edit(
        slow, "provider_id: vectors", "provider_id: vectors-with-a-name-that-is-longer-than-the-terminal-日本"
    )
    lines = drawn(sent_to_terminal(40, "apply", NO_COLOR="1"))
    assert any(
        line.startswith("applying vector_io/vectors-with") and line.endswith("(1 s)") for line in lines
    )
    assert max(len(line) for line in lines if line.startswith("applying")) <= 40


def test_events_on_a_terminal_are_lines_without_a_running_line(slow) -> None:
    shown = sent_to_terminal(200, "apply", "--events", NO_COLOR="1")
    assert drawn(shown) == []
    assert len(events_of("\n".join(line for line in shown.splitlines() if line.startswith("{")))) == 5
