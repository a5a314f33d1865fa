"""Calls of plugins' functions that may take long, sync or async, each with a deadline.

A function runs in a thread, so that one which does not come back is left behind. What it awaits runs
on one event loop, in a thread of its own.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from threading import Thread
from typing import TYPE_CHECKING, Any

from stackconf.redact import described

if TYPE_CHECKING:
    import asyncio

_GRACE = 5.0  # a coroutine that blocks its loop is given up on after the deadline and this


class Late(Exception):
    """A plugin's function did not come back before the deadline."""


class Calls:
    """Calls plugins' functions, sync or async, each with a deadline.

    All awaitables of one transaction run on one event loop, so that what `apply_config` opened
    its `undo` can close. The loop exists only if something is async.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[[], Any]) -> Any:
        """The result, awaited if need be. Raises `Late` after the deadline."""
        result = self._in_thread(function)
        return self._await(result) if inspect.isawaitable(result) else result

    def close(self) -> None:
        """Stop the event loop, if there is one."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None

    def _in_thread(self, function: Callable[[], Any]) -> Any:
        box: dict[str, Any] = {}

        def run() -> None:
            try:
                box["result"] = function()
            except BaseException as error:  # noqa: BLE001 (raised again by the thread that waits)
                box["error"] = error

        thread = Thread(target=run, name="stackconf-apply", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # CPython 3.12.0 and 3.12.1 start none once the main thread has ended
            run()
        else:
            thread.join(self._seconds)
            if thread.is_alive():
                raise Late
        if "error" in box:
            raise box["error"]
        return box["result"]

    def _await(self, awaitable: Awaitable[Any]) -> Any:
        import asyncio

        async def shielded() -> Any:
            try:
                return await awaitable
            except (SystemExit, asyncio.CancelledError) as error:  # either would take the loop along
                raise RuntimeError(described(error).removeprefix("raised ")) from error

        async def waiting() -> Any:
            task = asyncio.ensure_future(shielded())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left
            done, _ = await asyncio.wait({task}, timeout=self._seconds)
            if not done:
                task.cancel()
                raise Late
            return task.result()

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            Thread(target=_run_loop, args=(self._loop,), name="stackconf-loop", daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(waiting(), self._loop)
        try:
            return future.result(self._seconds + _GRACE)
        except TimeoutError as error:
            if future.done():
                raise
            self._loop = None  # something blocks it; the others get a new one
            raise Late from error


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    import asyncio

    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=_GRACE))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
