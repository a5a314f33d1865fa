"""OGX 1.5 as a running server: what is reached for inside it, and why."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from stackconf.apply import apply_seconds
from stackconf.redact import described
from stackconf_ogx.internals.base import own_log
from stackconf_ogx.internals.running import Running, replaced
from stackconf_ogx.late import renewing

if TYPE_CHECKING:
    from stackconf_ogx.internals.running import Impl, Tell, Wanted

_FILE = "OGX_CONFIG"
_MODELS, _TOOLS = "inference", "tool_runtime"
_ANY = "all"
"""The provider of a model that the file registers with whichever comes first."""
LIST_SECONDS = 30.0
"""For the list of a provider's models, if an apply may take twice as long."""
_STORES = {"inference": "model_store", "vector_io": "vector_store_store", "tool_runtime": "tool_store"}
"""What `CommonRoutingTableImpl.initialize` sets on each provider, by api."""

_log = logging.getLogger("stackconf.ogx")


class Ogx15Server(Running):
    """One OGX 1.5 in this process."""

    kinds: ClassVar[Mapping[str, str]] = {
        "inference": "model",
        "vector_io": "vector_store",
        "tool_runtime": "tool_group",
    }
    resources: ClassVar[Mapping[str, tuple[str, str]]] = {
        "models": ("inference", "model_id"),
        "vector_stores": ("vector_io", "vector_store_id"),
        "tool_groups": ("tool_runtime", "toolgroup_id"),
    }
    lingers = 300.0  # a response that is asked for in the background
    holding = frozenset({"vector_store"})

    def __init__(self, wanted: Wanted, tell: Tell) -> None:
        super().__init__(wanted, tell)
        # `server.server` makes the application, `stack` its providers and `resolver` each of them.
        # `configure` reads the file. `routing_tables.common` tells a provider of an object that is
        # registered with it. `distribution` has the types. `admin` and `providers` tell of providers.
        from ogx.core import configure, distribution, resolver, stack
        from ogx.core.datatypes import RegistryEntrySource, StackConfig
        from ogx.core.routing_tables import common, toolgroups
        from ogx.core.server import server
        from ogx_api import Api, ListProvidersResponse, ProviderInfo

        self.resolver, self.routing, self.file_class = resolver, common, StackConfig
        self.distribution, self._server, self._stack = distribution, server, stack
        self._configure, self._tools = configure, toolgroups
        self._tool_groups = Api.tool_groups
        self._listed = RegistryEntrySource.listed_from_provider
        self._answers = ListProvidersResponse, ProviderInfo
        self._register_resources = stack.register_resources

    async def start(self) -> None:
        """Have the server's own factory make the application, and its own lifespan the providers, on this
        loop.
        """
        with own_log():
            app = await asyncio.to_thread(self._application)
            with self._seams():
                await self._enter(app)
        self.impls = app.stack.impls

    async def stop(self) -> None:
        """And what outlives the providers in this process, so that the next server begins afresh."""
        await super().stop()
        # The class keeps them, and not the object.
        self._tools.ToolGroupsRoutingTable.toolgroups_to_tools.clear()
        self._tools.ToolGroupsRoutingTable.tool_to_toolgroup.clear()

    def _application(self) -> Any:
        """`create_app` reads the file that a variable names, and takes its settings out of it."""
        before = os.environ.get(_FILE)
        os.environ[_FILE] = str(self._wanted.path)
        self._config = self.file_class(**self._wanted.data)

        def log(run_config: Any) -> None:  # noqa: ARG001 (what it is called with)
            self._server.logger.info(yaml.dump(dict(self._wanted.shown), indent=2))

        try:
            with (
                # What stackconf resolved stands for what the server would make of the file.
                replaced(self._configure, "parse_and_maybe_upgrade_config", lambda _: self._config),
                # Its log must not have what its own redaction lets through.
                replaced(self._server, "_log_run_config", log),
            ):
                return self._server.create_app()
        except SystemExit as error:
            raise RuntimeError(str(error)) from error
        finally:
            os.environ.pop(_FILE)
            if before is not None:
                os.environ[_FILE] = before

    @contextmanager
    def _seams(self) -> Iterator[None]:
        stack = self._stack
        with ExitStack() as seams:
            for name, value in {
                "register_resources": self._register_each,
                "auto_register_tool_groups": self._register_tools(stack.auto_register_tool_groups),
                "refresh_registry_once": self._list_in_time(stack.refresh_registry_once),
                "validate_vector_stores_config": self._validate(stack.validate_vector_stores_config),
                "ProviderImpl": self._telling(stack.ProviderImpl),
                "AdminImpl": self._telling(stack.AdminImpl),
            }.items():
                seams.enter_context(replaced(stack, name, value))
            seams.enter_context(self._watched())
            yield

    def _telling(self, answering: Any) -> type:
        """Upstream's `/v1/providers` and what `/v1alpha/admin` has of it, with the configurations in
        force, and the health of each provider under its own name: upstream looks the health up by id
        among apis.
        """
        response, info = self._answers
        tell = self._tell

        class Telling(answering):  # type: ignore[misc]
            async def list_providers(self) -> Any:
                return response(data=[info(**each) for each in await tell()])

        return Telling

    def _register_tools(self, real: Any) -> Any:
        """The tool groups of providers that could not be made wait until they join."""

        async def register(config: Any, impls: Any) -> None:
            providers = {
                api: [each for each in listed if f"{api}/{each.provider_id}" not in self.failed]
                for api, listed in config.providers.items()
            }
            await real(config.model_copy(update={"providers": providers}), impls)

        return register

    def _list_in_time(self, real: Any) -> Any:
        """A provider that never answers holds up the start no longer than this; each that was not asked for
        its models then is asked when it is applied.
        """

        async def refresh(impls: Any) -> None:
            seconds = _list_seconds()
            try:
                await asyncio.wait_for(real(impls), seconds)
            except TimeoutError:
                _log.warning("not every provider listed its models within %g s", seconds)

        return refresh

    def _validate(self, real: Any) -> Any:
        """The default models may be those of a provider that comes later."""

        async def validate(*arguments: Any) -> None:
            try:
                await real(*arguments)
            except Exception as error:
                if not self.failed:
                    raise
                _log.warning("vector_stores: %s", error)

        return validate

    def put(self, key: str, impl: Impl | None) -> None:
        """And tell it of the others of its api, where it wants to know."""
        super().put(key, impl)
        api = key.partition("/")[0]
        if impl is not None and hasattr(impl, "set_sibling_providers"):
            others = {
                name.partition("/")[2]: made.standin
                for name, made in self._made.items()
                if name.partition("/")[0] == api and name != key and made.standin is not None
            }
            impl.set_sibling_providers(others)

    def link(self, impl: Impl, api: str, table: Any) -> None:
        """As `CommonRoutingTableImpl.initialize`."""
        setattr(impl, _STORES[api], table)

    async def join(self, key: str, wanted: Wanted) -> None:
        """And what the provider has without being told: its tool group, or its models."""
        await super().join(key, wanted)
        await self._refresh(key, self.file_class(**wanted.data))

    async def refresh(self, key: str, wanted: Wanted) -> None:
        """And which models it lists now, or whether its tool group is to be its own."""
        await super().refresh(key, wanted)
        config = self.file_class(**wanted.data)
        if not key.startswith(f"{_TOOLS}/") or _deciding(config) != _deciding(self._config):
            await self._refresh(key, config)

    async def catch_up(self, key: str) -> None:
        """Upstream asks a provider for its models when it starts, and one that does not answer then never
        again, unless its configuration says so.
        """
        api, _, provider_id = key.partition("/")
        if api == _MODELS and api in self._tables:
            models = await self._tables[api].get_all_with_type(self.kinds[api])
            if not any(each.provider_id == provider_id and self._brought(each) for each in models):
                await self._refresh(key, self._config)

    async def _refresh(self, key: str, config: Any) -> None:
        api, _, provider_id = key.partition("/")
        if api not in self._tables:
            return
        if api == _TOOLS:
            await self._register_tool_groups(config)
        if api == _MODELS and await self._list_models(provider_id):
            await self._register_for_any(config)

    async def _list_models(self, provider_id: str) -> bool:
        """As `ModelsRoutingTable.refresh` for all of them; whether the provider answered."""
        table = self._tables[_MODELS]
        try:
            asked = table.impls_by_provider_id[provider_id].list_models()
            models = await asyncio.wait_for(asked, _list_seconds())
        except Exception as error:  # noqa: BLE001 (a provider's own)
            _log.warning("%s/%s does not list its models: %s", _MODELS, provider_id, described(error))
            table.listed_providers.discard(provider_id)  # then upstream asks it the next time
            return False
        table.listed_providers.add(provider_id)
        if models is not None:
            async with renewing(table) as through:
                await through.update_registered_models(provider_id, models)
        return True

    async def _register_for_any(self, config: Any) -> None:
        """The models of the file that are for whichever provider comes first, where there was none yet."""
        registry = self._tables[_MODELS].dist_registry
        for each in config.registered_resources.models:
            if each.provider_id == _ANY and await registry.get("model", each.model_id) is None:
                await self._register_resources(self._only(config, None), self.impls)
                return

    async def _hand_on(self, key: str, provider_id: str) -> None:
        """The models that are for any provider, from one that leaves; upstream would not, at no start."""
        registry = self._tables[_MODELS].dist_registry
        for each in self._config.registered_resources.models:
            if each.provider_id == _ANY:
                found = await registry.get("model", each.model_id)
                if found is not None and found.provider_id == provider_id:
                    await registry.delete("model", each.model_id)
        self.put(key, None)
        await self._register_for_any(self._config)

    async def _register_tool_groups(self, config: Any) -> None:
        """Which provider has a group that several have is decided anew, as when the server starts."""
        async with renewing(self._tables[_TOOLS]) as through:
            await self._stack.auto_register_tool_groups(config, {self._tool_groups: through})

    async def forget(self, key: str) -> None:
        """And that its models were listed; its tool group goes to another provider that has it too."""
        api, _, provider_id = key.partition("/")
        if api not in self._tables:
            return
        if api == _TOOLS:
            there = self._tables[api].impls_by_provider_id.keys() - {provider_id}
            left = [each for each in self._config.providers[api] if each.provider_id in there]
            providers = {**self._config.providers, api: left}
            await self._register_tool_groups(self._config.model_copy(update={"providers": providers}))
        await super().forget(key)
        if api == _MODELS:
            self._tables[api].listed_providers.discard(provider_id)
            await self._hand_on(key, provider_id)

    def _brought(self, registered: Any) -> bool:
        by_itself: bool = (
            registered.type == "tool_group" or getattr(registered, "source", None) == self._listed
        )
        return by_itself

    def _identifiers(self, given: Any, name: str) -> tuple[str, ...]:
        return name, f"{given.provider_id}/{name}"

    def _lists(self, config: Any) -> Any:
        return config.registered_resources

    def _with_lists(self, config: Any, lists: Any) -> Any:
        return config.model_copy(update={"registered_resources": lists})

    def _behind_routers(self) -> frozenset[str]:
        """Those without a router that the file does not list: their providers are made, and stay unused."""
        listed = self._config.apis
        return frozenset(self.kinds) & frozenset(listed) if listed else frozenset(self.kinds)

    def _protocol(self, spec: Any) -> type:
        found: type = self.resolver.api_protocol_map_for_compliance_check(self._config)[spec.api]
        return found


def _list_seconds() -> float:
    return min(LIST_SECONDS, apply_seconds() / 2)


def _deciding(config: Any) -> list[tuple[str, str, bool]]:
    """By what upstream chooses the provider of a tool group that several have."""
    return [
        (each.provider_id, each.provider_type, "api_key" not in each.config or bool(each.config["api_key"]))
        for each in config.providers.get(_TOOLS, ())
    ]
