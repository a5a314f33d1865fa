"""Try again what could not be reached, with longer and longer pauses between.

Only providers whose last attempt ended pending are tried, and only while the revision that they were
to have is still the newest: what has been registered since is applied when somebody applies it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from threading import Event
from typing import TYPE_CHECKING

from stackconf.actor import current_actor
from stackconf.errors import ApplyBusy, ApplyError

if TYPE_CHECKING:
    from stackconf.apply import Observer, Report
    from stackconf.client.client import Client
    from stackconf.stack import Stack

FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0
"""Seconds. Doubling in between, as Home Assistant does for what is not ready yet."""
_JITTER = 0.1


def pauses(first: float = FIRST_PAUSE, longest: float = LONGEST_PAUSE) -> Iterator[float]:
    """Seconds to wait before each try, without end: doubling up to `longest`, and each up to a tenth
    longer by chance, so that many stacks do not come to one server at once.

    >>> from itertools import islice
    >>> [int(pause / 1.1) <= nominal <= pause for pause, nominal in zip(pauses(), (5, 10, 20, 40))]
    [True, True, True, True]
    """
    pause = first
    while True:
        yield pause * (1 + random.random() * _JITTER)  # noqa: S311 (spreads load, guards nothing)
        pause = min(2 * pause, longest)


def keep_trying(
    stack: Stack | Client,
    *,
    stop: Event,
    between: Iterable[float] | None = None,
    actor: str | None = None,
    observer: Observer | None = None,
    told: Callable[[Report], None] | None = None,
) -> bool:
    """Try what is pending until nothing is, or until `stop` is set; whether nothing is pending.

    `told` is called with the report of every try, failed ones too: a provider that answers and
    rejects the change is pending no more. While another apply runs, a try is put off. Raises
    `StoreError` when the store fails, and `InvalidConfig` when the stack no longer validates.
    """
    waits = iter(pauses() if between is None else between)
    while stack.pending:
        if stop.wait(next(waits, LONGEST_PAUSE)):
            return False
        try:
            report = stack.retry(actor=actor or current_actor(), observer=observer)
        except ApplyBusy:
            continue
        except ApplyError as error:
            report = error.report  # type: ignore[assignment]
        if told is not None:
            told(report)
        if report.state == "nothing":  # it left the stack file, or runs with it by now
            return True
    return True
