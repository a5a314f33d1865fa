"""One provider's turn in an apply: made anew, tried, swapped in, and the way back.

A provider is made anew beside the one in force, asked for its health, told what is registered for it,
and put where upstream looks it up. Requests that began before are still answered by the old one,
which is shut down once they are through; until the apply is kept, an undo has it back as it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from stackconf import Applied, StackconfError
from stackconf.redact import described
from stackconf_ogx.reachable import unhealthy, unreachable

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf import Provider
    from stackconf_ogx.hosted import HostedTypes
    from stackconf_ogx.internals.running import Impl, Running, Wanted
    from stackconf_ogx.server import InForce, UpstreamServer

T = TypeVar("T")

_log = logging.getLogger("stackconf.ogx")


class Change:
    """What an apply does with one provider. All but the coroutines runs in the apply's own thread."""

    def __init__(
        self,
        server: UpstreamServer,
        types: HostedTypes,
        provider: Provider,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._server, self._types, self._loop = server, types, loop
        self._provider, self._key = provider, provider.key
        self._before = server.in_force(provider.key)

    def make(self, config: BaseModel) -> Applied:
        """Have the provider in force with its configuration."""
        from stackconf_ogx.internals.running import in_time

        if self._runs_with(config):
            problem = self._check()
            if problem is not None:
                return Applied(pending=f"{problem}; it is in place")
            self._on_loop(in_time(self._running.catch_up(self._key)))
            return Applied("runs with it", undo=_nothing, check=self._check)
        began = perf_counter()
        anew = self._types.restarts(self._provider.type_key) or not self._server.has_place(self._provider.api)
        problem = self._set_up_anew(config) if anew else self._swap(config)
        if problem is not None:
            return Applied(pending=problem)
        took = f"in {(perf_counter() - began) * 1000:.0f} ms"
        if anew:
            back = self._set_up_as_before
            how = f"the server was set up anew {took}"
            return Applied(how, undo=back, check_undo=self._check)
        return Applied(
            f"{'joined' if self._before is None else 'swapped'} {took}",
            undo=self._undo,  # no check: it has just been asked, before it was put in
            check_undo=self._check,
            retire=self._retire,
        )

    def leave(self) -> Applied:
        """Take the provider out."""
        if self._before is None:
            return Applied("was not running", undo=_nothing)
        self._on_loop(self._put(None, self._wanted(None)))
        return Applied("left", undo=self._undo, check_undo=self._check, retire=self._retire)

    def _runs_with(self, config: BaseModel) -> bool:
        before = self._before
        return (
            before is not None
            and before.provider_type == self._provider.provider_type
            and before.config == config
        )

    def _swap(self, config: BaseModel) -> str | None:
        """Why the provider could not be reached, where it could not. Raises what it raises."""
        from stackconf_ogx.internals.running import in_time

        wanted = self._wanted(config)
        self._types.import_modules(self._provider.type_key)  # here, for it would hold up every request
        try:
            return self._on_loop(in_time(self._swapped(config, wanted)))
        except Exception as error:
            reason = unreachable(error)
            if reason is None:
                raise
            return reason

    async def _swapped(self, config: BaseModel, wanted: Wanted) -> str | None:
        from stackconf_ogx.server import InForce

        running, provider = self._running, self._provider
        impl = await running.build(wanted.entry(provider.api, provider.provider_id), provider.api)
        try:
            problem = None
            if provider.type_key not in running.asked_when_made:
                problem = unhealthy(await running.health(impl))
            if problem is None:
                if self._before is not None:
                    await running.settle(self._key, impl, wanted)
                await self._put(InForce(impl, provider.provider_type, config), wanted)
        except BaseException:
            await self._discard(impl)
            raise
        if problem is not None:
            await self._discard(impl)
        return problem

    async def _discard(self, impl: Impl) -> None:
        try:
            await self._running.shut_down(impl)
        except Exception as error:  # noqa: BLE001 (a provider's own; it never answered anybody)
            _log.warning("%s: what was made for nothing did not shut down: %s", self._key, described(error))

    async def _put(self, fresh: InForce | None, wanted: Wanted) -> None:
        """Exchange what is in force; with nothing changed where that does not work out."""
        server, running, key = self._server, self._running, self._key
        before = server.in_force(key)
        try:
            if fresh is None:
                await running.forget(key)  # first, so that what goes to another provider is always somewhere
            server.put(key, fresh)
            if fresh is not None and before is None:
                await running.join(key, wanted)
            elif fresh is not None:
                await running.refresh(key, wanted)
        except BaseException:
            server.put(key, before)
            raise
        server.tell(wanted)

    def _undo(self) -> None:
        """Put back what was in force before this change."""
        fresh, before = self._server.in_force(self._key), self._before
        wanted = self._wanted(None if before is None else before.config)

        async def back() -> None:
            await self._put(before, wanted)
            if fresh is not None:
                self._server.retire(self._key, fresh.impl)

        self._on_loop(back())

    def _set_up_anew(self, config: BaseModel | None) -> str | None:
        configs = self._configs(config)
        return self._on_loop(self._server.set_up_anew(self._types, configs, self._key))

    def _set_up_as_before(self) -> None:
        problem = self._set_up_anew(None if self._before is None else self._before.config)
        if problem is not None:
            raise StackconfError(problem)

    def _check(self) -> str | None:
        found = self._server.in_force(self._key)
        return None if found is None else unhealthy(self._on_loop(self._running.health(found.impl)))

    def _retire(self) -> None:
        if self._before is not None:
            self._loop.call_soon_threadsafe(self._server.retire, self._key, self._before.impl)

    @property
    def _running(self) -> Running:
        return self._server.running

    def _configs(self, config: BaseModel | None) -> dict[str, BaseModel]:
        """What is in force, with this provider's configuration as it is to be."""
        configs = self._server.configs
        configs.pop(self._key, None)
        return configs if config is None else {**configs, self._key: config}

    def _wanted(self, config: BaseModel | None) -> Wanted:
        return self._types.wanted(self._configs(config))

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _nothing() -> None:
    """The undo of what changed nothing."""
