"""A server that upstream made in this process: what both versions have in common inside.

Upstream makes a server from a whole file: each provider by `resolver.instantiate_provider`, behind a
router or for itself, then the resources of the file. What is replaced while it does so, and put back
after, are names in upstream's modules; each says why.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from attrs import define, field, frozen

from stackconf.apply import apply_seconds
from stackconf_ogx.standin import StandIn

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import ASGIApp

_TOOLS = "tool_runtime"
HEALTH_SECONDS = 5.0
"""For one provider's own health check before it is swapped in."""

_log = logging.getLogger("stackconf.ogx")

_SHARE = 0.9

T = TypeVar("T")
Impl: TypeAlias = Any
"""A provider as upstream made it."""

Tell: TypeAlias = Callable[[], Awaitable[list[dict[str, Any]]]]
"""Upstream's `ProviderInfo` of every provider, as plain data."""


@frozen
class Wanted:
    """What a server is to be made of: the file at `path` as upstream's class reads it, with the
    effective configuration of each provider, secrets in the clear; and `shown`, the same for its log.
    """

    path: Path
    data: Mapping[str, Any] = field(repr=False)
    shown: Mapping[str, Any] = field(repr=False)

    def entry(self, api: str, provider_id: str) -> dict[str, Any]:
        """One of them."""
        return next(each for each in self.entries(api) if each["provider_id"] == provider_id)

    def entries(self, api: str) -> list[dict[str, Any]]:
        """The providers of an api, as the file has them."""
        return list(self.data["providers"].get(api) or ())


@define
class _Made:
    """How a provider was made, so that it can be made again."""

    arguments: tuple[Any, ...]
    """Of `instantiate_provider`, after the provider."""
    spec: Any
    standin: StandIn | None = None


class Running(ABC):
    """One server, from `start` to `stop`. Everything but the constructor is called on its event loop."""

    resolver: Any
    """Upstream's module of that name."""
    distribution: Any
    """Upstream's module `distribution`."""
    routing: Any
    """Upstream's module `routing_tables.common`."""
    file_class: Any
    kinds: ClassVar[Mapping[str, str]]
    """For each api behind a router, what is registered with its providers."""
    asked_when_made: ClassVar[frozenset[str]] = frozenset()
    """The types, by key, whose providers cannot be made unless their own health check is fine."""
    resources: ClassVar[Mapping[str, tuple[str, str]]]
    """For each list of resources in the file: the api of the providers that have them, and what names one."""
    lingers: ClassVar[float] = 0.0
    """How many seconds upstream may go on with a provider after the request that began with it."""
    holding: ClassVar[frozenset[str]]
    """Of these kinds, those that stand for data."""

    def __init__(self, wanted: Wanted, tell: Tell) -> None:
        self._wanted, self._tell = wanted, tell
        self._register_resources: Callable[[Any, Any], Awaitable[None]]
        """Upstream's own."""
        self.failed: dict[str, Exception] = {}
        """The providers that could not be made at the start, by `api/provider_id`."""
        self.app: ASGIApp | None = None
        self.impls: dict[Any, Any] = {}
        self._made: dict[str, _Made] = {}
        self._tables: dict[str, Any] = {}
        """Upstream's routing tables, by the api of the providers behind them."""
        self._config: Any = None
        self._registry: Any = None
        self._lifespan: Any = None

    @abstractmethod
    async def start(self) -> None:
        """Make the server, and have it ready to answer. Raises what upstream raises."""

    async def stop(self) -> None:
        """Shut down everything, as upstream does at its end."""
        lifespan, self._lifespan = self._lifespan, None
        for table in self._tables.values():  # whose own shutdown ends at a provider that has none
            there = table.impls_by_provider_id
            table.impls_by_provider_id = {
                key: each for key, each in there.items() if hasattr(each, "shutdown")
            }
        if lifespan is not None:
            await lifespan.__aexit__(None, None, None)

    def current(self, key: str) -> Impl | None:
        """The provider in force, or `None`."""
        api, _, provider_id = key.partition("/")
        if api in self._tables:
            return self._tables[api].impls_by_provider_id.get(provider_id)
        made = self._made.get(key)
        return None if made is None or made.standin is None else made.standin.stands_for

    async def build(self, entry: Mapping[str, Any], api: str) -> Impl:
        """A provider of an entry of the file, beside the one in force. Raises what upstream raises."""
        key = f"{api}/{entry['provider_id']}"
        spec = self._spec(api, entry["provider_type"])
        made = self._made.get(key)
        arguments = self._arguments(spec) if made is None or made.spec is not spec else made.arguments
        provider = self.resolver.ProviderWithSpec(spec=spec, **entry)
        impl = await self.resolver.instantiate_provider(provider, *arguments)
        if made is None:
            self._made[key] = _Made(arguments, spec)
        if api in self._tables:
            self.link(impl, api, self._tables[api])
        return impl

    def put(self, key: str, impl: Impl | None) -> None:
        """Have upstream find a provider from the next look on; `None`: find none."""
        api, _, provider_id = key.partition("/")
        table = self._tables.get(api)
        if table is None:
            self._stand_in(key).exchange(impl)
            return
        # Upstream goes through this mapping with awaits on the way, so that it may not grow or shrink.
        found = dict(table.impls_by_provider_id)
        if impl is None:
            found.pop(provider_id, None)
        else:
            found[provider_id] = impl
        table.impls_by_provider_id = found

    def has_place(self, api: str) -> bool:
        """Whether a provider of this api can join: its routes are made when the server starts."""
        return api in self._tables or any(
            made.standin for key, made in self._made.items() if key.split("/")[0] == api
        )

    def tell(self, wanted: Wanted) -> None:
        """Have upstream's own views show another file's providers."""
        self._wanted = wanted
        fresh = self.file_class(**wanted.data)
        self._config.providers = fresh.providers

    @abstractmethod
    def link(self, impl: Impl, api: str, table: Any) -> None:
        """What a routing table does to each of its providers when it is made."""

    async def settle(self, key: str, impl: Impl, wanted: Wanted) -> None:
        """Tell a provider that is about to take another's place what is registered for it. Raises what
        upstream raises where it refuses something that the file names; of the rest, which clients
        registered, it need not have everything.
        """
        api, _, provider_id = key.partition("/")
        if api not in self._tables:
            return
        named = self._named(wanted, key)
        for each in await self._tables[api].dist_registry.get_all():
            if each.provider_id == provider_id and each.type == self.kinds[api]:
                try:
                    await self.routing.register_object_with_provider(each.model_copy(), impl)
                except Exception as error:
                    if each.identifier in named:
                        raise
                    _log.warning("%s does not take %s `%s`: %s", key, each.type, each.identifier, error)

    async def join(self, key: str, wanted: Wanted) -> None:
        """Register what the file names for a provider that has just been put, as upstream does when it
        starts. Raises what upstream raises.
        """
        await self._register_resources(self._only(self.file_class(**wanted.data), key), self.impls)

    async def catch_up(self, key: str) -> None:  # noqa: B027 (not every version has something to catch up)
        """Have upstream know what a provider could not tell when it was made, now that it is well."""

    async def refresh(self, key: str, wanted: Wanted) -> None:  # noqa: ARG002
        """Have upstream look again at what a provider offers that was swapped: the table of tool groups
        keeps which tools each has.
        """
        for group in await self._groups(key):
            if not group.mcp_endpoint:
                await self._tables[_TOOLS]._index_tools(group)  # noqa: SLF001 (as where one is registered)

    async def forget(self, key: str) -> None:
        """Take what a provider brought that has left out of upstream's registry; data stays, and so does
        what clients registered.
        """
        api, _, provider_id = key.partition("/")
        if api not in self._tables or self.kinds[api] in self.holding:
            return
        registry = self._tables[api].dist_registry
        named = self._named(self._wanted, key)
        for each in await registry.get_all():
            its_own = each.provider_id == provider_id and each.type == self.kinds[api]
            if its_own and (each.identifier in named or self._brought(each)):
                await registry.delete(each.type, each.identifier)
                if api == _TOOLS:
                    self._unindex(each.identifier)

    def _unindex(self, group: str) -> None:
        table = self._tables[_TOOLS]
        table.toolgroups_to_tools.pop(group, None)
        for tool in [tool for tool, its in table.tool_to_toolgroup.items() if its == group]:
            del table.tool_to_toolgroup[tool]

    async def _groups(self, key: str) -> list[Any]:
        api, _, provider_id = key.partition("/")
        if api != _TOOLS or api not in self._tables:
            return []
        registered = await self._tables[api].dist_registry.get_all()
        return [
            each for each in registered if each.type == self.kinds[api] and each.provider_id == provider_id
        ]

    def _brought(self, registered: Any) -> bool:  # noqa: ARG002
        """Whether a registered object came from the provider itself, and not from a client."""
        return False

    def _named(self, wanted: Wanted, key: str) -> frozenset[str]:
        """The identifiers of what the file registers for a provider."""
        kept = self._lists(self._only(self.file_class(**wanted.data), key))
        return frozenset(
            identifier
            for name, (_, names) in self.resources.items()
            for each in getattr(kept, name)
            for identifier in self._identifiers(each, getattr(each, names))
        )

    def _identifiers(self, given: Any, name: str) -> tuple[str, ...]:  # noqa: ARG002
        """Under which identifiers a resource of the file may be registered."""
        return (name,)

    async def _register_each(self, config: Any, impls: Any) -> None:
        """Each provider's resources apart, so that one that refuses a model leaves the others alone. It
        stands for upstream's own `register_resources` while the server starts.
        """
        self.impls = impls
        for api, table in self._tables.items():
            for provider_id in list(table.impls_by_provider_id):
                key = f"{api}/{provider_id}"
                try:
                    await in_time(self._register_resources(self._only(config, key), impls))
                except Exception as error:  # noqa: BLE001 (a provider's own; who starts the server tells it)
                    self.failed[key] = error
                    self.put(key, None)
        try:
            await in_time(self._register_resources(self._only(config, None), impls))
        except TimeoutError as error:  # upstream asks the first provider for some of these
            _log.warning("what the file registers with no provider in particular: %s", error)

    def _only(self, config: Any, key: str | None) -> Any:
        """The file with the resources of one provider; for `None`, with those of none of its providers."""
        lists = self._lists(config)
        kept: dict[str, list[Any]] = {}
        for name, (api, _) in self.resources.items():
            keys = {f"{api}/{each.provider_id}" for each in config.providers.get(api, ())}
            kept[name] = [
                each
                for each in getattr(lists, name)
                if (own if (own := f"{api}/{getattr(each, 'provider_id', None)}") in keys else None) == key
            ]
        return self._with_lists(config, lists.model_copy(update=kept))

    def _lists(self, config: Any) -> Any:
        """What of a file has the lists of its resources."""
        return config

    def _with_lists(self, config: Any, lists: Any) -> Any:  # noqa: ARG002
        """The file with other lists of resources."""
        return lists

    async def shut_down(self, impl: Impl) -> None:
        """End a provider that nobody asks any more."""
        ending = getattr(impl, "shutdown", None)
        if ending is not None:
            await asyncio.wait_for(ending(), HEALTH_SECONDS)

    async def health(self, impl: Impl, seconds: float = HEALTH_SECONDS) -> dict[str, Any] | None:
        """What a provider says of its own health, in upstream's words; `None` where it says nothing."""
        ask = getattr(impl, "health", None)
        if ask is None:
            return None
        try:
            told = await asyncio.wait_for(ask(), seconds)
        except TimeoutError:
            return {"status": "Error", "message": f"its health check did not answer within {seconds:g} s"}
        except Exception as error:  # noqa: BLE001 (a provider's own)
            return {"status": "Error", "message": str(error) or type(error).__name__}
        return {"status": getattr(told["status"], "value", told["status"]), "message": told.get("message")}

    async def _enter(self, app: Any) -> None:
        self._lifespan = app.router.lifespan_context(app)
        await self._lifespan.__aenter__()
        self.app = app

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """While upstream makes every provider: one that fails does not take the others along, and what
        has routes of its own gets a stand-in.
        """
        real = self.resolver.instantiate_provider

        async def instantiate(provider: Any, deps: Any, inner_impls: dict[str, Any], *others: Any) -> Any:
            spec, arguments = provider.spec, (deps, inner_impls, *others)
            if hasattr(spec, "router_api"):  # a routing table, made after all that stand behind it
                for key in self.failed:
                    api, _, provider_id = key.partition("/")
                    if api == spec.router_api.value:
                        inner_impls.pop(provider_id, None)
                table = await real(provider, *arguments)
                self._tables[spec.router_api.value] = table
                return table
            if hasattr(spec, "routing_table_api"):  # a router
                return await real(provider, *arguments)
            return await self._first(provider, arguments, real)

        with replaced(self.resolver, "instantiate_provider", instantiate):
            yield

    async def _first(self, provider: Any, arguments: tuple[Any, ...], real: Callable[..., Any]) -> Any:
        spec = provider.spec
        api = spec.api.value
        key = f"{api}/{provider.provider_id}"
        self._made[key] = made = _Made(arguments, spec)
        impl = None
        try:
            impl = await in_time(real(provider, *arguments))
        except Exception as error:  # noqa: BLE001 (a provider's own; the first apply tells it)
            self.failed[key] = error
        if api in self._behind_routers():
            return impl
        made.standin = StandIn(self._protocol(spec), impl)
        return made.standin

    def _stand_in(self, key: str) -> StandIn:
        made = self._made[key]
        if made.standin is None:
            api = key.partition("/")[0]
            made.standin = next(
                other.standin
                for name, other in self._made.items()
                if name.partition("/")[0] == api and other.standin is not None
            )
        return made.standin

    @abstractmethod
    def _behind_routers(self) -> frozenset[str]:
        """The apis whose providers upstream looks up for each request."""

    @abstractmethod
    def _protocol(self, spec: Any) -> type:
        """Upstream's class of what an api can do."""

    def _spec(self, api: str, provider_type: str) -> Any:
        """Upstream's own declaration of a type. Raises `KeyError`."""
        if self._registry is None:
            self._registry = self.distribution.get_provider_registry(self._config)
        by_type = next(types for each, types in self._registry.items() if each.value == api)
        spec = by_type[provider_type]
        spec.deps__ = []  # what orders providers when all are made at once
        return spec

    def _arguments(self, spec: Any) -> tuple[Any, ...]:
        """What a provider is made with that was not there when the server started."""
        deps = {each: self.impls[each] for each in spec.api_dependencies}
        deps |= {each: self.impls[each] for each in spec.optional_api_dependencies if each in self.impls}
        some = next(iter(self._made.values()))
        return (deps, {}, *some.arguments[2:])


async def in_time(work: Awaitable[T]) -> T:
    """What has to be done in a little less than an apply gives a provider. Raises `TimeoutError`."""
    seconds = _SHARE * apply_seconds()
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError(f"it was not ready within {seconds:g} s") from error


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """With another value under a name of a module."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
