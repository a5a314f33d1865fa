"""Run other people's code so that it cannot hold us: a thread of its own, and a deadline an item.

A thread that does not come back is left behind (it is a daemon, so it cannot hold the process
either) and the items after it go on in a new one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Event, Thread
from time import monotonic
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

HOOK_SECONDS = 20.0
"""How long one provider's hooks may take, unless `STACKCONF_HOOK_TIMEOUT` says otherwise."""


def hook_seconds() -> float:
    """The deadline for one provider's hooks, in seconds."""
    try:
        return float(os.environ.get("STACKCONF_HOOK_TIMEOUT", "") or HOOK_SECONDS)
    except ValueError:
        return HOOK_SECONDS


class _Batch(Generic[Item, Result]):
    def __init__(self, function: Callable[[Item], Result], items: Sequence[Item]) -> None:
        self.function = function
        self.items = items
        self.results: list[Result] = []
        self.error: BaseException | None = None
        self.started = monotonic()
        self.done = Event()
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
            self.done.set()


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
        Thread(target=batch.run, name="stackconf-hooks", daemon=True).start()
        if _finished(batch, seconds):
            if batch.error is not None:
                raise batch.error
            return results + batch.results
        batch.abandoned = True
        results += batch.results[:]
        results.append(late(items[len(results)]))
    return results


def _finished(batch: _Batch[Item, Result], seconds: float) -> bool:
    while True:
        left = batch.started + seconds - monotonic()
        if batch.done.wait(max(left, 0.001)):
            return True
        if monotonic() - batch.started >= seconds:
            return False
