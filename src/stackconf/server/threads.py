"""Work that blocks, done beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from stackconf.apply import Progress, Report
    from stackconf.server.applies import Running

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises, without holding up the loop."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work)


async def ended(running: Running) -> None:
    """Wait for an apply without a thread that waits. Being cancelled does not touch the apply."""
    async for _ in more(running):
        pass


async def more(
    running: Running, seen: int = 0, beat: float | None = None
) -> AsyncIterator[Progress | Report | None]:
    """Each event after the first `seen`, as it happens, until the apply is over; `None` where nothing
    happened for `beat` seconds.
    """
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it who would hear
            loop.call_soon_threadsafe(changed.set)

    leave = running.watch(wake)
    try:
        while True:
            changed.clear()
            over = running.over
            while seen < len(running.events):
                yield running.events[seen]
                seen += 1
            if over:
                return
            try:
                await asyncio.wait_for(changed.wait(), beat)
            except TimeoutError:
                yield None
    finally:
        leave()
