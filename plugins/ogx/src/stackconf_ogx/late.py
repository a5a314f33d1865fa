"""Upstream's registry, in which nothing is missing for a moment only.

Upstream renews what a provider has by deleting all of it and registering each again, and awaits in
between. A request that comes just then is told that its model does not exist.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class Late:
    """The registry for whoever renews: what is deleted there is deleted at the end, unless it was
    registered again.
    """

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self._gone: set[tuple[str, str]] = set()

    async def get_all(self) -> list[Any]:
        """What is registered and was not deleted here."""
        return [
            each for each in await self._registry.get_all() if (each.type, each.identifier) not in self._gone
        ]

    async def get(self, kind: str, identifier: str) -> Any:
        """One of them, or `None`."""
        return None if (kind, identifier) in self._gone else await self._registry.get(kind, identifier)

    async def register(self, given: Any) -> bool:
        """Raises what the registry raises where it has something else under the same name."""
        key = given.type, given.identifier
        if key not in self._gone:
            done: bool = await self._registry.register(given)
            return done
        self._gone.discard(key)
        if await self._registry.get(*key) != given:
            await self._registry.update(given)
        return True

    async def update(self, given: Any) -> Any:
        """Have something else under the same name."""
        self._gone.discard((given.type, given.identifier))
        return await self._registry.update(given)

    async def delete(self, kind: str, identifier: str) -> None:
        """Delete it at the end."""
        self._gone.add((kind, identifier))

    async def end(self) -> None:
        """Delete what was not registered again."""
        gone, self._gone = self._gone, set()
        for key in gone:
            await self._registry.delete(*key)


@asynccontextmanager
async def renewing(table: Any) -> AsyncIterator[Any]:
    """A copy of one of upstream's routing tables, to renew through. Where that fails nothing is deleted."""
    late = Late(table.dist_registry)
    through = copy.copy(table)
    through.dist_registry = late
    yield through
    await late.end()
