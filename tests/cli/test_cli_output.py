"""Colour, width and foreign characters, on a terminal and off it."""

from __future__ import annotations

import fcntl
import io
import os
import re
import struct
import subprocess
import sys
import termios

import pytest
from cli_kit import PROGRAM

from stackconf.cli.output import Screen, wrapped


def on_terminal(width: int, *args: str, **env: str) -> str:
    """What a terminal of that width shows for a command, without the running line of a slow machine."""
    return re.sub(r"(\r\x1b\[K[^\r\n]*)*\r\x1b\[K", "", sent_to_terminal(width, *args, **env))


def sent_to_terminal(width: int, *args: str, **env: str) -> str:
    """All that a command sends to a terminal of that width."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environ = {**os.environ, "TERM": "xterm", **env}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--plugin", "plugin.py", *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environ,
    ) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        os.close(ours)
        running.wait(60)
    return shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(
    "width",
    [pytest.param(40, marks=pytest.mark.exhaustive), 60, pytest.param(160, marks=pytest.mark.exhaustive)],
)
@pytest.mark.parametrize(
    "command", ["plan", "explain one", "providers list", "providers show one", "hardware"]
)
def test_nothing_is_wider_than_the_terminal(here, command, width) -> None:
    shown = on_terminal(width, *command.split(), NO_COLOR="1")
    assert "Traceback" not in shown
    assert max(map(len, shown.splitlines())) <= width


@pytest.mark.parametrize("command", ["plan", "explain one", "providers list"])
def test_in_a_pipe_nothing_is_wrapped_or_coloured(process, here, command) -> None:
    piped = process(*command.split(), "--plugin", "plugin.py", COLUMNS="20").out
    assert "\x1b" not in piped
    assert piped == on_terminal(400, *command.split(), NO_COLOR="1")


def test_colour_is_for_terminals_and_for_those_who_ask(here, process) -> None:
    assert "\x1b[32" in on_terminal(80, "plan")
    assert "\x1b[" not in on_terminal(80, "plan", NO_COLOR="1")
    assert "\x1b[" not in on_terminal(80, "plan", TERM="dumb")
    assert "\x1b[" not in on_terminal(80, "plan", "--color", "never")
    assert "\x1b[" in process("plan", "--plugin", "plugin.py", FORCE_COLOR="1").out
    assert "\x1b[" in process("plan", "--plugin", "plugin.py", "--color", "always", NO_COLOR="1").out


def test_colour_never_carries_meaning_alone(here, process) -> None:
    plain = process("plan", "--plugin", "plugin.py").out
    coloured = process("plan", "--plugin", "plugin.py", "--color", "always").out
    for code in ("0", "1", "2", "32;1"):
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == plain


def test_a_file_cannot_drive_the_terminal(cli, here) -> None:
    file = here / "stack.yaml"
    text = file.read_text(encoding="utf-8").replace("http://one", '"http://\\e[2Jone"')
    file.write_text(text, encoding="utf-8")
    for command in ("plan", "explain one"):
        ran = cli(*command.split())
        assert "\x1b" not in ran.out
        assert "\\u001b[2J" in ran.out


def test_a_terminal_that_lacks_letters_is_no_error(process, here) -> None:
    (here / "stack.yaml").write_text(
        "providers: {inference: [{provider_id: ä, provider_type: 'remote::acme'}]}", encoding="utf-8"
    )
    ran = process("providers", "list", "--plugin", "plugin.py", PYTHONIOENCODING="ascii")
    assert ran.code == 0
    assert "inference/\\xe4" in ran.out


def screen(width: int | None) -> Screen:
    made = Screen(io.StringIO(), "never")
    made.width = width
    return made


def test_a_table_that_does_not_fit_becomes_records() -> None:
    narrow = screen(30)
    narrow.table(("name", "type", "what"), [("a-long-name-of-it", "also-a-long-one", "-"), ("b", "c", "d")])
    assert narrow.stream.getvalue() == (
        "a-long-name-of-it\n  type  also-a-long-one\nb\n  type  c\n  what  d\n"
    )


def test_a_table_wraps_prose_and_breaks_no_word() -> None:
    medium = screen(50)
    medium.table(("name", "what"), [("a-name", "some words that are a good deal longer than the line")])
    assert medium.stream.getvalue() == (
        "name    what\na-name  some words that are a good deal longer\n        than the line\n"
    )


def test_wide_letters_are_measured_as_they_are_shown() -> None:
    table = screen(None)
    table.table(("name", "what"), [("日本", "x"), ("abc", "y")])
    assert table.stream.getvalue() == "name  what\n日本  x\nabc   y\n"


def test_wrapping_keeps_every_word() -> None:
    text = "one two three four five six seven eight nine ten"
    assert " ".join(wrapped(text, 20)) == text
    assert wrapped(text, None) == [text]
