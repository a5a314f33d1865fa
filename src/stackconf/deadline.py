"""Run other people's code so that it cannot hold us: a thread of its own, and a deadline an item.

A thread that does not come back is left behind (it is a daemon, so it cannot hold the process
either) and the items after it go on in another. A thread that did come back waits a moment for
more work, because starting one costs as much as resolving several providers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

HOOK_SECONDS = 20.0
"""How long one provider's hooks may take, unless `STACKCONF_HOOK_TIMEOUT` says otherwise."""

_IDLE_SECONDS = 1.0
"""How long a thread waits for more work. Not forever: a process that forks should have one thread."""


def hook_seconds() -> float:
    """The deadline for one provider's hooks, in seconds."""
    return seconds_from("STACKCONF_HOOK_TIMEOUT", HOOK_SECONDS)


def seconds_from(variable: str, default: float) -> float:
    """The positive number of seconds that an environment variable gives, else the default."""
    try:
        seconds = float(os.environ.get(variable, "") or default)
    except ValueError:
        return default
    return seconds if 0 < seconds < threading.TIMEOUT_MAX else default


class _Batch(Generic[Item, Result]):
    def __init__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self.function = function
        self.items = items
        self.results: list[Result] = []
        self.error: BaseException | None = None
        self.started = monotonic()
        self.done = Lock()
        self.done.acquire()
        self.abandoned = False

    def run(self) -> None:
        try:
            for item in self.items:
                self.started = monotonic()
                result = self.function(item)
                if self.abandoned:
                    return
                self.results.append(result)
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that waits)
            self.error = error
        finally:
            self.done.release()


class _Worker:
    """A thread that runs batches. Whoever takes it from `_idle` has it alone."""

    def __init__(self) -> None:
        self._batches: SimpleQueue[_Batch[Any, Any] | None] = SimpleQueue()
        Thread(target=self._serve, name="stackconf-hooks", daemon=True).start()

    def run(self, batch: _Batch[Any, Any]) -> None:
        self._batches.put(batch)

    def dismiss(self) -> None:
        """End the thread when it comes back from what it is doing."""
        self._batches.put(None)

    def _serve(self) -> None:
        while True:
            try:
                batch = self._batches.get(timeout=_IDLE_SECONDS)
            except Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # taken a moment ago: the batch is on its way
                    continue
                return
            if batch is None:
                return
            batch.run()
            del batch  # it holds on to the caller's world


_idle: list[_Worker] = []
os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


def _idle_worker() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()


def map_with_deadline(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    seconds: float,
    late: Callable[[Item], Result],
) -> list[Result]:
    """`[function(item) for item in items]`, but an item that takes too long gives `late(item)`.

    >>> from time import sleep
    >>> map_with_deadline(sleep, [0.0, 5.0, 0.0], seconds=0.1, late=lambda item: "late")
    [None, 'late', None]
    """
    results: list[Result] = []
    while len(results) < len(items):
        batch = _Batch(function, items[len(results) :])
        worker = _idle_worker()
        worker.run(batch)
        try:
            finished = _finished(batch, seconds)
        except BaseException:  # a keyboard interrupt while we wait
            batch.abandoned = True
            worker.dismiss()
            raise
        if finished:
            _idle.append(worker)
            if batch.error is not None:
                raise batch.error
            return results + batch.results
        batch.abandoned = True
        worker.dismiss()
        results += batch.results[:]
        if len(results) < len(items):  # the last one may have come back in this very moment
            results.append(late(items[len(results)]))
    return results


def _finished(batch: _Batch[Item, Result], seconds: float) -> bool:
    while True:
        left = batch.started + seconds - monotonic()
        if batch.done.acquire(timeout=max(left, 0.001)):
            return True
        if monotonic() - batch.started >= seconds:
            return False
