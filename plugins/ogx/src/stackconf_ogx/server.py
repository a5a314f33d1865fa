"""The real server in this process: started with what stackconf resolved, changed while it answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from attrs import frozen

from stackconf import StackconfError
from stackconf.redact import described
from stackconf.retry import pauses
from stackconf_ogx.change import Change
from stackconf_ogx.gate import Gate
from stackconf_ogx.internals.base import enabled
from stackconf_ogx.reachable import unhealthy, unreachable

if TYPE_CHECKING:
    from pydantic import BaseModel
    from starlette.types import Receive, Scope, Send

    from stackconf import Applied, Provider
    from stackconf_ogx.hosted import HostedTypes
    from stackconf_ogx.internals.running import Impl, Running, Tell, Wanted

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
    """One upstream server and what its providers run with. It is an ASGI application.

    `apply` is called by the thread of an apply; everything else belongs to the event loop that serves.
    """

    def __init__(self, types: HostedTypes, make: Callable[[Wanted, Tell], Running]) -> None:
        self._types, self._make = types, make
        self.path, self.data = types.path, types.data
        self.listens, self.logs_requests = types.listens, types.logs_requests
        self._gate = Gate()
        self._running: Running | None = None
        self._wanted: Wanted | None = None
        self._in_force: dict[str, InForce] = {}
        self._had: dict[str, BaseModel] = {}
        """What each provider ran with, for a server that is down."""
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._behind: set[asyncio.Task[None]] = set()
        """What is done behind the requests."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for one of upstream's own routes."""
        await self._gate(scope, receive, send)

    async def start(self, configs: Mapping[str, BaseModel]) -> None:
        """Start with these effective configurations, by `api/provider_id`.

        A provider that cannot be reached is left out, for the first apply to try again. Raises
        `StackconfError` where the server does not start, or one of its providers refuses to.
        """
        label = self._types.label
        try:
            running = await self._set_up(self._types, configs)
        except Exception as error:
            raise StackconfError(
                f"{label} did not start: {described(error).removeprefix('raised ')}"
            ) from error
        refused = {key: error for key, error in running.failed.items() if unreachable(error) is None}
        if refused:
            await self.stop()
            said = "; ".join(f"{key} {described(error)}" for key, error in refused.items())
            raise StackconfError(f"{label} was not started: {said}")
        self._started.set_result(asyncio.get_running_loop())

    async def stop(self) -> None:
        """Shut it down, with what still drained."""
        for each in self._behind:
            each.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)
        self._had = self.configs
        running, self._running, self._in_force = self._running, None, {}
        if running is not None:
            await running.stop()

    def apply(self, types: HostedTypes, provider: Provider, config: BaseModel | None) -> Applied:
        """What `apply_config` does: `None` for a provider that leaves."""
        change = Change(self, types, provider, self._started.result())
        return change.leave() if config is None else change.make(config)

    @property
    def running(self) -> Running:
        """The inside of the server, which may be another one after the next change."""
        assert self._running is not None  # noqa: S101 (nothing is asked before it starts or after it ends)
        return self._running

    @property
    def configs(self) -> dict[str, BaseModel]:
        """What each provider runs with, by `api/provider_id`, or ran with where the server is down."""
        if self._running is None:
            return dict(self._had)
        return {key: each.config for key, each in self._in_force.items()}

    def has_place(self, api: str) -> bool:
        """Whether a provider of this api can join the running server."""
        return self._running is not None and self._running.has_place(api)

    def in_force(self, key: str) -> InForce | None:
        """A provider of the running server."""
        return self._in_force.get(key)

    def put(self, key: str, what: InForce | None) -> None:
        """Have upstream find a provider, or none, from now on."""
        self.running.put(key, None if what is None else what.impl)
        if what is None:
            self._in_force.pop(key, None)
        else:
            self._in_force[key] = what

    def tell(self, wanted: Wanted) -> None:
        """Have upstream's own views show a file's providers."""
        self.running.tell(wanted)
        self._wanted = wanted

    def retire(self, key: str, impl: Impl) -> None:
        """Shut a provider down once nobody who may have it is inside."""
        running = self.running

        async def later() -> None:
            try:
                if not await self._gate.drained(DRAIN_SECONDS):
                    _log.warning("%s: requests still used what was swapped out %g s ago", key, DRAIN_SECONDS)
                await asyncio.sleep(running.lingers)
            finally:
                try:
                    await running.shut_down(impl)
                except Exception as error:  # noqa: BLE001 (a provider's own, which nobody needs any more)
                    _log.warning("%s: what was swapped out did not shut down: %s", key, described(error))

        self._later(later())

    async def set_up_anew(self, types: HostedTypes, configs: Mapping[str, BaseModel], key: str) -> str | None:
        """Have the whole server anew while requests wait, for what cannot be swapped.

        Where provider `key` does not come up, the server is set up as it was: returned is why it could
        not be reached, and what else was wrong is raised.
        """
        before = self.configs
        async with self._gate.closed():
            if not await self._gate.drained(RESTART_SECONDS):
                _log.warning("%d requests were cut off after %g s", self._gate.busy, RESTART_SECONDS)
            try:
                problem = await self._came_up(types, configs, key)
            except Exception as error:
                problem = unreachable(error)
                if problem is None:
                    await self._as_before(types, before)
                    raise
            if problem is not None:
                await self._as_before(types, before)
        return problem

    async def _came_up(self, types: HostedTypes, configs: Mapping[str, BaseModel], key: str) -> str | None:
        running = await self._replaced(types, configs)
        if key in running.failed:
            raise running.failed[key]
        found = self.in_force(key)
        return None if found is None else unhealthy(await running.health(found.impl))

    async def _as_before(self, types: HostedTypes, configs: Mapping[str, BaseModel]) -> None:
        """Have the server as it was. Where even that does not come up, it is tried until it does."""
        try:
            await self._replaced(types, configs)
        except Exception as error:  # noqa: BLE001 (upstream's; the caller raises what was before it)
            _log.error("%s is down, for it does not come up as it was: %s", types.label, described(error))
            self._later(self._bring_up(types, configs))

    async def _bring_up(self, types: HostedTypes, configs: Mapping[str, BaseModel]) -> None:
        for pause in pauses():
            await asyncio.sleep(pause)
            async with self._gate.closed():
                if self._running is not None:
                    return
                try:
                    await self._made_anew(types, configs, configs)
                except Exception as error:  # noqa: BLE001 (upstream's; the next try comes)
                    _log.info("%s does not come up yet: %s", types.label, described(error))
                else:
                    _log.info("%s is up again", types.label)
                    return

    async def _replaced(self, types: HostedTypes, configs: Mapping[str, BaseModel]) -> Running:
        """The server made anew in the place of the one that was. What could be reached a moment ago and
        cannot be now is tried again.
        """
        before = self.configs
        await self.stop()
        return await self._made_anew(types, configs, before)

    async def _made_anew(
        self, types: HostedTypes, configs: Mapping[str, BaseModel], before: Mapping[str, BaseModel]
    ) -> Running:
        running = await self._set_up(types, configs)
        for key, error in running.failed.items():
            provider = types.provider(key)
            if provider is not None and key in before:
                _log.warning("%s did not come back: %s", key, described(error))
                self._later(self._bring_back(types, provider, configs[key]))
        return running

    async def _set_up(self, types: HostedTypes, configs: Mapping[str, BaseModel]) -> Running:
        wanted = types.wanted(configs)
        running = self._make(wanted, self._told)
        self._running, self._wanted = running, wanted
        try:
            await running.start()
        except BaseException:
            self._running = None
            raise
        for key, config in configs.items():
            impl, provider = running.current(key), types.provider(key)
            if impl is not None and provider is not None:
                self._in_force[key] = InForce(impl, provider.provider_type, config)
        self._gate.lead_to(running.app)
        return running

    async def _bring_back(self, types: HostedTypes, provider: Provider, config: BaseModel) -> None:
        running, key = self._running, provider.key
        for pause in pauses():
            await asyncio.sleep(pause)
            if running is None or running is not self._running or key in self._in_force:
                return
            wanted = types.wanted({**self.configs, key: config})
            try:
                impl = await running.build(wanted.entry(provider.api, provider.provider_id), provider.api)
                self.put(key, InForce(impl, provider.provider_type, config))
                await running.join(key, wanted)
            except Exception as error:  # noqa: BLE001 (a provider's own; the next try comes)
                self.put(key, None)
                _log.info("%s does not come back yet: %s", key, described(error))
            else:
                self.tell(wanted)
                _log.info("%s is back", key)
                return

    async def _told(self) -> list[dict[str, Any]]:
        """Upstream's `ProviderInfo` of each provider, with the configuration in force, secrets redacted."""
        from stackconf.resolve.render import SHOWN

        wanted = self._wanted
        assert wanted is not None  # noqa: S101 (it answers)
        entries = [
            (api, each) for api in wanted.data["providers"] for each in wanted.entries(api) if enabled(each)
        ]
        there = [self.in_force(f"{api}/{each['provider_id']}") for api, each in entries]
        healths = await asyncio.gather(*map(self._health, there))
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
        if found is None:
            return {"status": "Error", "message": "it is not running; `stackconf status` says why"}
        told = await self.running.health(found.impl, TELL_SECONDS)
        return told or {"status": "Not Implemented", "message": "Provider does not implement health check"}

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)
