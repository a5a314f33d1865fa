"""Work that blocks, done beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from stackconf.errors import ApplyBusy

if TYPE_CHECKING:
    from stackconf.apply import Progress, Report
    from stackconf.server.applies import Running
    from stackconf.server.hosted import Hosted

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """What `work` returns or raises, without holding up the loop."""
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(work)


async def begun(hosted: Hosted, begin: Callable[[], Running], wait: float) -> Running:
    """An apply that is begun once none runs. Raises `ApplyBusy` where one still does after `wait` seconds.

    Who waits takes no thread meanwhile: any number of them keeps nobody from reading.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while True:
        try:
            return await in_thread(begin)
        except ApplyBusy:
            left = until - loop.time()
            if left <= 0 or hosted.applies.closed:
                raise
        running = hosted.applies.running
        if running is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await ended(running)


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
