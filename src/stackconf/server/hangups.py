"""What a signal handler may do: ask, without a lock that its own thread might hold.

A handler runs in the main thread, between any two steps of what that does, a handler for the signal
before included. `Event.set` would then wait for itself.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue


class Hangups:
    """Requests to read the files again, made at any instant and answered together.

    >>> hangups = Hangups()
    >>> hangups.ask(), hangups.ask()
    (None, None)
    >>> hangups.wait(0), hangups.wait(0)
    (True, False)
    """

    def __init__(self) -> None:
        self._asked: SimpleQueue[None] = SimpleQueue()  # its `put` is made for signal handlers

    def ask(self) -> None:
        """Ask for it. A signal handler may, at any instant."""
        self._asked.put(None)

    def wait(self, seconds: float) -> bool:
        """Whether somebody asked, or does within so many seconds."""
        try:
            self._asked.get(timeout=seconds)
        except Empty:
            return False
        while not self._asked.empty():
            self._asked.get()
        return True
