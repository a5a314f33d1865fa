"""The real server in this process: started with what stackconf resolved, changed while it answers.

A provider is made anew beside the one in force, asked for its health, told what is registered for it,
and put where upstream looks it up. Requests that began before are still answered by the old one,
which is shut down once they are through. Until then an undo has it back as it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import frozen

from stackconf import Applied, StackconfError
from stackconf.redact import described
from stackconf_ogx.gate import Gate
from stackconf_ogx.internals.base import enabled
from stackconf_ogx.reachable import unreachable

if TYPE_CHECKING:
    from pydantic import BaseModel
    from starlette.types import Receive, Scope, Send

    from stackconf import Provider
    from stackconf_ogx.hosted import HostedTypes
    from stackconf_ogx.internals.running import Impl, Running, Tell, Wanted

T = TypeVar("T")

DRAIN_SECONDS = 600.0
"""How long requests may still use a provider that was swapped out."""
RESTART_SECONDS = 60.0
"""How long requests may take that are inside when the server has to be set up anew."""
TELL_SECONDS = 1.0
"""For the health of one provider in `/v1/providers`, as in upstream."""

_log = logging.getLogger("stackconf.ogx")


@frozen(eq=False)
class InForce:
    """A provider of the running server, and what it was made with."""

    impl: Impl
    provider_type: str
    config: BaseModel


class UpstreamServer:
    """One upstream server. `start`, `stop` and requests belong to its event loop; the rest may be called
    by any other thread.
    """

    def __init__(self, types: HostedTypes, make: Callable[[Wanted, Tell], Running]) -> None:
        self._types, self._make = types, make
        self.listens = types.listens
        self._gate = Gate()
        self._running: Running | None = None
        self._in_force: dict[str, InForce] = {}
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._retiring: set[asyncio.Task[None]] = set()
        self._wanted: Wanted | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for one of upstream's own routes."""
        await self._gate(scope, receive, send)

    async def start(self, configs: Mapping[str, BaseModel]) -> None:
        """Start with these effective configurations, by `api/provider_id`. Raises `StackconfError`."""
        types = self._types
        try:
            await self._set_up(types.wanted(configs), types, configs)
        except BaseException as error:
            self._started.cancel()
            if isinstance(error, Exception) and not isinstance(error, StackconfError):
                raise StackconfError(f"{types.label} did not start: {described(error)}") from error
            raise
        self._started.set_result(asyncio.get_running_loop())

    async def stop(self) -> None:
        """Shut it down, with what still drained."""
        for each in self._retiring:
            each.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._running is not None:
            running, self._running = self._running, None
            await running.stop()

    def apply(self, types: HostedTypes, provider: Provider, config: BaseModel | None) -> Applied:
        """What `apply_config` does: `None` for a provider that leaves."""
        loop = self._started.result()
        change = _Change(self, types, provider, config, loop)
        return change.leave() if config is None else change.make()

    # ---- on the event loop

    async def _set_up(self, wanted: Wanted, types: HostedTypes, configs: Mapping[str, BaseModel]) -> None:
        running = self._make(wanted, self._told)
        await running.start()
        self._running, self._wanted = running, wanted
        self._in_force = {}
        for key, config in configs.items():
            impl = running.current(key)
            if impl is not None:
                self._in_force[key] = InForce(impl, types.type_of(key), config)
        for key, error in running.failed.items():
            _log.warning("%s was not started: %s", key, described(error))
        self._gate.lead_to(running.app)

    async def _told(self) -> list[dict[str, Any]]:
        """Upstream's `ProviderInfo` of each provider, with the configuration in force, secrets redacted."""
        from stackconf.resolve.render import SHOWN

        running, wanted = self._running, self._wanted
        assert running is not None and wanted is not None  # noqa: S101, PT018 (it answers)
        entries = [(api, each) for api in wanted.data["providers"] for each in wanted.entries(api)]
        entries = [(api, each) for api, each in entries if enabled(each)]
        there = [self._in_force.get(f"{api}/{each['provider_id']}") for api, each in entries]
        healths = await asyncio.gather(*(self._health(each) for each in there))
        return [
            {
                "api": api,
                "provider_id": each["provider_id"],
                "provider_type": each["provider_type"],
                "config": {} if found is None else SHOWN.render(found.config),
                "health": health,
            }
            for (api, each), found, health in zip(entries, there, healths, strict=True)
        ]

    async def _health(self, found: InForce | None) -> dict[str, Any]:
        if found is None or self._running is None:
            return {"status": "Error", "message": "it is not running; `stackconf status` says why"}
        told = await self._running.health(found.impl, TELL_SECONDS)
        return told or {"status": "Not Implemented", "message": "Provider does not implement health check"}

    def _retire(self, key: str, impl: Impl) -> None:
        """Shut a provider down once nobody who may have it is inside."""
        running = self._running
        assert running is not None  # noqa: S101 (nothing is swapped after the end)

        async def later() -> None:
            try:
                if not await self._gate.drained(DRAIN_SECONDS):
                    _log.warning("%s: requests still used what was swapped out %g s ago", key, DRAIN_SECONDS)
            finally:
                try:
                    await running.shut_down(impl)
                except Exception as error:  # noqa: BLE001 (a provider's own, and nobody needs it any more)
                    _log.warning("%s: what was swapped out did not shut down: %s", key, described(error))

        task = asyncio.get_running_loop().create_task(later())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


class _Change:
    """One provider's turn in an apply."""

    def __init__(
        self,
        server: UpstreamServer,
        types: HostedTypes,
        provider: Provider,
        config: BaseModel | None,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._server, self._types, self._loop = server, types, loop
        self._provider, self._key, self._config = provider, provider.key, config
        running = server._running  # noqa: SLF001 (its other half)
        assert running is not None  # noqa: S101 (it has started)
        self._running = running
        self._before = server._in_force.get(self._key)  # noqa: SLF001

    def make(self) -> Applied:
        """Have the provider in force with its configuration."""
        before, config = self._before, self._config
        assert config is not None  # noqa: S101 (it does not leave)
        if before is not None and _same(before, self._provider.provider_type, config):
            problem = self._on_loop(self._wrong(before.impl))
            if problem:
                return Applied(pending=f"{problem}; it is in place")
            return Applied("runs with it", undo=_nothing, check=self._check)
        wanted = self._types.wanted(self._configs(config))
        if self._types.restarts(self._provider.type_key) or not self._running.has_place(self._provider.api):
            return Applied(pending="needs a restart")
        return self._swap(config, wanted)

    def _swap(self, config: BaseModel, wanted: Wanted) -> Applied:
        began = perf_counter()
        entry = self._entry(wanted)
        self._types.import_modules(self._provider.type_key)
        try:
            fresh = self._on_loop(self._prepared(entry, wanted))
        except Exception as error:
            reason = unreachable(error)
            if reason is None:
                raise
            return Applied(pending=reason)
        if isinstance(fresh, str):
            return Applied(pending=fresh)
        self._on_loop(self._put(InForce(fresh, self._provider.provider_type, config), wanted))
        took = (perf_counter() - began) * 1000
        verb = "joined" if self._before is None else "swapped"
        return Applied(
            f"{verb} in {took:.0f} ms",
            undo=self._undo,
            check=self._check,
            check_undo=self._check,
            retire=self._retire,
        )

    def leave(self) -> Applied:
        """Take the provider out."""
        if self._before is None:
            return Applied("was not running", undo=_nothing)
        self._on_loop(self._put(None, self._types.wanted(self._configs(None))))
        return Applied("left", undo=self._undo, check_undo=self._check, retire=self._retire)

    async def _prepared(self, entry: Mapping[str, Any], wanted: Wanted) -> Impl | str:
        """The provider made anew, healthy and told what is registered for it, or why it is not."""
        impl = await self._running.build(entry, self._provider.api)
        try:
            problem = await self._wrong(impl)
            if problem is None and self._before is not None:
                await self._running.settle(self._key, impl, wanted)
        except BaseException:
            await self._discard(impl)
            raise
        if problem is None:
            return impl
        await self._discard(impl)
        return problem

    async def _discard(self, impl: Impl) -> None:
        try:
            await self._running.shut_down(impl)
        except Exception as error:  # noqa: BLE001 (a provider's own; it never answered anybody)
            _log.warning("%s: what was made for nothing did not shut down: %s", self._key, described(error))

    async def _put(self, fresh: InForce | None, wanted: Wanted) -> None:
        """Exchange what is in force; with nothing changed where it does not work out."""
        server, key = self._server, self._key
        before = server._in_force.get(key)  # noqa: SLF001
        self._in_place(fresh)
        try:
            if fresh is not None and before is None:
                await self._running.join(key, wanted)
            if fresh is None:
                await self._running.forget(key)
            else:
                await self._running.refresh(key)
        except BaseException:
            self._in_place(before)
            raise
        self._running.tell(wanted)
        server._wanted = wanted  # noqa: SLF001

    def _in_place(self, what: InForce | None) -> None:
        server = self._server
        self._running.put(self._key, None if what is None else what.impl)
        if what is None:
            server._in_force.pop(self._key, None)  # noqa: SLF001
        else:
            server._in_force[self._key] = what  # noqa: SLF001

    def _undo(self) -> None:
        """Put back what was in force before this change."""
        fresh = self._server._in_force.get(self._key)  # noqa: SLF001
        before = self._before
        wanted = self._types.wanted(self._configs(None if before is None else before.config))

        async def back() -> None:
            await self._put(before, wanted)
            if fresh is not None:
                self._server._retire(self._key, fresh.impl)  # noqa: SLF001

        self._on_loop(back())

    def _check(self) -> str | None:
        found = self._server._in_force.get(self._key)  # noqa: SLF001
        return None if found is None else self._on_loop(self._wrong(found.impl))

    def _retire(self) -> None:
        before = self._before
        if before is not None:
            self._loop.call_soon_threadsafe(self._server._retire, self._key, before.impl)  # noqa: SLF001

    async def _wrong(self, impl: Impl) -> str | None:
        told = await self._running.health(impl)
        if told is None or told["status"] != "Error":
            return None
        return f"its health check says: {told['message'] or 'Error'}"

    def _configs(self, config: BaseModel | None) -> dict[str, BaseModel]:
        """What is in force, with this provider's configuration as it is to be."""
        configs = {key: each.config for key, each in self._server._in_force.items()}  # noqa: SLF001
        configs.pop(self._key, None)
        return configs if config is None else {**configs, self._key: config}

    def _entry(self, wanted: Wanted) -> Mapping[str, Any]:
        return next(
            each
            for each in wanted.entries(self._provider.api)
            if each["provider_id"] == self._provider.provider_id
        )

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _same(before: InForce, provider_type: str, config: BaseModel) -> bool:
    return before.provider_type == provider_type and before.config == config


def _nothing() -> None:
    """The undo of what changed nothing."""
