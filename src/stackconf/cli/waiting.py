"""A line that says what is being waited for, and how long, on a terminal, after a moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from stackconf.cli.output import Screen, display_width, err, visible

if TYPE_CHECKING:
    from stackconf.cli.options import Settings

MOMENT = 0.6
"""Seconds before the line appears, so that what is quick does not flicker."""

_TICK = 0.1
_FRAMES = "|/-\\"
_CLEAR = "\r\x1b[K"


class Line:
    """The line itself: `say` changes its text. On anything but a terminal it stays silent."""

    def __init__(self, screen: Screen, text: str) -> None:
        from threading import Event, Thread

        self._screen = screen
        self._waiting_for = (text, monotonic())
        self._stop = Event()
        self._thread = Thread(target=self._draw, name="stackconf-waiting", daemon=True)
        if screen.live:
            self._thread.start()

    def say(self, text: str) -> None:
        """Show another text from now on, and count the seconds anew."""
        self._waiting_for = (text, monotonic())

    def close(self) -> None:
        """Take the line away."""
        self._stop.set()
        if self._screen.live:
            self._thread.join()

    def _draw(self) -> None:
        if self._stop.wait(MOMENT):
            return
        number = 0
        try:
            while not self._stop.wait(_TICK):
                self._screen.raw(_CLEAR + self._line(_FRAMES[number % len(_FRAMES)]))
                self._screen.stream.flush()
                number += 1
            self._screen.raw(_CLEAR)
            self._screen.stream.flush()
        except OSError:
            return  # the terminal is gone; that must not stop what is being waited for

    def _line(self, frame: str) -> str:
        """What fits on the terminal; the seconds always do."""
        text, started = self._waiting_for
        text, seconds = visible(text), f" ({int(monotonic() - started)} s)"
        room = (self._screen.width or 80) - 1 - len(frame) - 1 - len(seconds)
        while text and display_width(text) > room:
            text = text[:-1]
        return f"{frame} {text}{seconds}"


@contextmanager
def waiting(settings: Settings, text: str) -> Iterator[Line]:
    """Show the line while the block runs."""
    line = Line(err(settings), text)
    try:
        yield line
    finally:
        line.close()
