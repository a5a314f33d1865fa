"""An apply as a stream of events, for a program that shows or forwards them.

The apply runs in a thread of its own and never waits for its reader. Once begun it runs to its end,
whatever happens to the reader: one that stops early (a `break`, an exception, Ctrl-C, a cancelled
task) is held up until the apply is over, so that nothing is left half way. To interrupt an apply
and have it taken back, call `Stack.apply` with an observer instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from stackconf.apply import Observer, Progress, Report
from stackconf.errors import ApplyError

if TYPE_CHECKING:
    import asyncio

Event: TypeAlias = Progress | Report
"""A step that begins or ends; the last one is the report."""

Run: TypeAlias = Callable[[Observer], Report]


@frozen(eq=False)
class _Over:
    """The end of the stream, and what the apply raised, if it did."""

    error: BaseException | None = None


def events(run: Run) -> Iterator[Event]:
    """Run an apply, and yield each event as it happens. The apply begins with the first `next`.

    A failed apply yields its report and then raises `ApplyError`. What else it raises is raised
    here.
    """
    told: SimpleQueue[Event | _Over] = SimpleQueue()
    thread = _started(run, told.put)
    try:
        while not isinstance(event := told.get(), _Over):
            yield event
    finally:
        thread.join()
    if event.error is not None:
        raise event.error


async def events_async(run: Run) -> AsyncIterator[Event]:
    """As `events`, for a loop that goes on meanwhile.

    Leave it early through `contextlib.aclosing`, as any asynchronous generator; otherwise the loop
    waits for the apply only when it ends itself.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    told: asyncio.Queue[Event | _Over] = asyncio.Queue()
    over = asyncio.Event()

    def tell(event: Event | _Over) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it who would hear
            loop.call_soon_threadsafe(told.put_nowait, event)
            if isinstance(event, _Over):
                loop.call_soon_threadsafe(over.set)

    _started(run, tell)
    try:
        while not isinstance(event := await told.get(), _Over):
            yield event
    finally:
        await _until(over)
    if event.error is not None:
        raise event.error


def _started(run: Run, tell: Callable[[Event | _Over], None]) -> Thread:
    def work() -> None:
        try:
            tell(run(tell))
        except ApplyError as error:
            if isinstance(error.report, Report):
                tell(error.report)
            tell(_Over(error))
        except BaseException as error:  # noqa: BLE001 (raised again by who reads)
            tell(_Over(error))
        else:
            tell(_Over())

    # Not a daemon: a process that ends waits for it, rather than leaving its providers half way.
    thread = Thread(target=work, name="stackconf-events")
    thread.start()
    return thread


async def _until(over: asyncio.Event) -> None:
    """Wait, and be cancelled only afterwards."""
    import asyncio

    cancelled: asyncio.CancelledError | None = None
    while not over.is_set():
        try:
            await over.wait()
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
