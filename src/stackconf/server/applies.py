"""Applies in a hosting process: one at a time, each in a thread of its own, watched by any number.

An apply belongs to the process and not to who asked for it: a client that goes away stops nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from secrets import token_hex
from threading import Condition, Event, Thread
from time import perf_counter
from typing import TYPE_CHECKING, TypeAlias

from stackconf.apply import Progress, Report, StopApply
from stackconf.errors import ApplyBusy, ApplyError
from stackconf.server.tally import Tally

if TYPE_CHECKING:
    from stackconf.apply import Observer

_log = logging.getLogger(__name__)

_BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)

Run: TypeAlias = Callable[["Observer"], Report]
Watcher: TypeAlias = Callable[[], None]


class Running:
    """One apply: what happened so far, and how it ended."""

    def __init__(self, number: int, actor: str, tally: Tally | None = None) -> None:
        self.number = number
        self.actor = actor
        self.id = token_hex(4)
        """What tells it from every other apply, also from those of an earlier process."""
        self.events: list[Progress | Report] = []
        self.error: BaseException | None = None
        self._changed = Condition()
        self._over = False
        self._stop = Event()
        self._watchers: list[Watcher] = []
        self._tally = tally

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._over

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for its end; whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._over, seconds)

    def report(self) -> Report:
        """How it went, when it is over. Raises what it raised."""
        self.wait()
        if self.error is not None:
            raise self.error
        last = self.events[-1]
        assert isinstance(last, Report)  # noqa: S101 (an apply without an error ends with one)
        return last

    @property
    def outcome(self) -> str:
        """How it went, when it is over, in a word: the state of its report, or `refused` where it raised
        before it touched anything.
        """
        last = self.events[-1] if self.events else None
        return last.state if isinstance(last, Report) else "refused"

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Have `watcher` called, in the apply's thread, whenever there is more, until what is returned is."""
        with self._changed:
            self._watchers.append(watcher)

        def leave() -> None:
            with self._changed:
                self._watchers.remove(watcher)

        return leave

    def interrupt(self) -> None:
        """Have it taken back at its next step."""
        self._stop.set()

    def run(self, run: Run) -> None:
        """Carry it out in the calling thread, whatever comes of it."""
        began = perf_counter()
        try:
            self._tell(run(self._observe))
        except ApplyError as error:
            self.error = error
            if isinstance(error.report, Report):
                self._tell(error.report)
        except BaseException as error:  # noqa: BLE001 (raised again by who asks for the report)
            self.error = error
        if self._tally is not None:
            self._tally.add((self.outcome,), perf_counter() - began)
        self._end()

    def _observe(self, progress: Progress) -> None:
        self._tell(progress)
        if self._stop.is_set():
            raise StopApply("the server is shutting down")

    def _tell(self, event: Progress | Report) -> None:
        with self._changed:
            self.events.append(event)
        self._call_watchers()

    def _end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._call_watchers()

    def _call_watchers(self) -> None:
        with self._changed:
            watchers = tuple(self._watchers)
        for each in watchers:
            each()


class Applies:
    """The applies of one hosting process, one after another."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._count = 0
        self._closed = False
        self.current: Running | None = None
        """The one that runs, or the last one."""
        self.tally = Tally(_BOUNDS)
        """Those that are over, by outcome."""

    @property
    def closed(self) -> bool:
        """Whether none begins any more."""
        return self._closed

    @property
    def running(self) -> Running | None:
        """The one that runs now."""
        current = self.current
        return current if current is not None and not current.over else None

    def start(self, run: Run, actor: str, *, wait: float = 0.0) -> Running:
        """Begin an apply, after the one that runs has ended. Raises `ApplyBusy` when that takes
        longer than `wait` seconds, or the process is ending.
        """
        with self._changed:
            free = self._changed.wait_for(lambda: self._closed or self.running is None, max(wait, 0.0))
            if self._closed:
                raise ApplyBusy("the server is shutting down; no apply begins")
            if not free:
                current = self.current
                by = f" by {current.actor}" if current is not None and current.actor else ""
                raise ApplyBusy(f"another apply of this stack is running{by}; wait for it to end")
            self._count += 1
            self.current = running = Running(self._count, actor, self.tally)
        # Not a daemon: a process that ends waits for it, rather than leaving its providers half way.
        Thread(target=self._work, args=(running, run), name="stackconf-apply").start()
        return running

    def close(self, grace: float) -> bool:
        """Let none begin any more, and wait for the one that runs: after `grace` seconds it is taken
        back. Whether none had to be.
        """
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            running = self.running
        if running is None or running.wait(grace):
            return True
        _log.warning("taking back the apply that runs: it has not ended within %g s", grace)
        running.interrupt()
        running.wait()
        return False

    def _work(self, running: Running, run: Run) -> None:
        running.run(run)
        with self._changed:
            self._changed.notify_all()
