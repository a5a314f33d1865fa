"""The way in to the server's own routes: who is inside, and waiting until those have left."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


_SERVICE_RESTART = 1012
"""Why a websocket is closed (RFC 6455 and its registry)."""


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
        self._moved = asyncio.Event()
        self._left = asyncio.Event()
        self._closing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; while the gate is closed it waits."""
        await self._open()
        app, visit = self._app, _Visit(self._left)
        assert app is not None  # noqa: S101 (the server accepts no connection before there is one)
        visit.begin(self._inside, self._epoch)
        try:
            if scope["type"] == "websocket":
                receive = self._turns(app, visit, receive, send)
            await app(scope, receive, send)
        finally:
            visit.end()

    def _turns(self, app: ASGIApp, visit: _Visit, receive: Receive, send: Send) -> Receive:
        """The `receive` of a websocket. Who is only connected is not inside; where the application has
        been exchanged meanwhile, a client is told to connect again.
        """
        exchanged = self._moved

        async def turn() -> Message:
            visit.end()
            asked, moved = asyncio.ensure_future(receive()), asyncio.ensure_future(exchanged.wait())
            try:
                await asyncio.wait({asked, moved}, return_when=asyncio.FIRST_COMPLETED)
                await self._open()
                if self._app is app:
                    visit.begin(self._inside, self._epoch)
                    return await asked
            finally:
                moved.cancel()
                asked.cancel()
            await send({"type": "websocket.close", "code": _SERVICE_RESTART})
            return {"type": "websocket.disconnect", "code": _SERVICE_RESTART}

        return turn

    async def _open(self) -> None:
        while self._opened is not None:
            await self._opened.wait()

    def lead_to(self, app: ASGIApp | None) -> None:
        """Have requests from now on go to an application."""
        moved, self._moved = self._moved, asyncio.Event()
        self._app = app
        moved.set()

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


class _Visit:
    """Somebody who is inside from time to time."""

    def __init__(self, left: asyncio.Event) -> None:
        self._left = left
        self._inside: Counter[int] | None = None
        self._epoch = 0

    def begin(self, inside: Counter[int], epoch: int) -> None:
        """Be inside, since an epoch."""
        self._inside, self._epoch = inside, epoch
        inside[epoch] += 1

    def end(self) -> None:
        """Leave, if inside."""
        inside, self._inside = self._inside, None
        if inside is not None:
            inside[self._epoch] -= 1
            if not inside[self._epoch]:
                del inside[self._epoch]
                self._left.set()
