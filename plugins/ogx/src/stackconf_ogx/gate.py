"""The way in to the server's own routes: who is inside, and waiting until those have left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Gate:
    """An application that can be exchanged, with the requests counted that are inside.

    A provider that was swapped out is needed by requests that began before the swap, and by no other.
    So each swap begins a new epoch, and who waits for a drain waits until the epochs before it are
    empty, however many requests come in meanwhile. Everything happens on one event loop.
    """

    def __init__(self) -> None:
        self._app: ASGIApp | None = None
        self._opened: asyncio.Event | None = None
        self._epoch = 0
        self._inside: Counter[int] = Counter()
        self._left = asyncio.Event()
        self._closing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; while the gate is closed it waits."""
        while self._opened is not None:
            await self._opened.wait()
        app, epoch, inside = self._app, self._epoch, self._inside
        assert app is not None  # noqa: S101 (the server accepts no connection before there is one)
        inside[epoch] += 1
        try:
            await app(scope, receive, send)
        finally:
            inside[epoch] -= 1
            if not inside[epoch]:
                del inside[epoch]
                self._left.set()

    def lead_to(self, app: ASGIApp | None) -> None:
        """Have requests from now on go to an application."""
        self._app = app

    @property
    def busy(self) -> int:
        """How many requests are inside."""
        return sum(self._inside.values())

    async def drained(self, seconds: float) -> bool:
        """Wait until every request that is inside now has left; whether they did within `seconds`."""
        epoch = self._epoch
        self._epoch += 1
        try:
            async with asyncio.timeout(seconds):
                while any(each <= epoch for each in self._inside):
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            return False
        return True

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Let nobody in for a while; who comes waits and is answered afterwards. One at a time."""
        async with self._closing:
            self._opened = opened = asyncio.Event()
            try:
                yield
            finally:
                self._opened = None
                opened.set()
