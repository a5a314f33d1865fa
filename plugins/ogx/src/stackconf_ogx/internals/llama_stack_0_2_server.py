"""llama-stack 0.2.12 as a running server: what is reached for inside it, and why."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from stackconf_ogx.internals.base import own_log
from stackconf_ogx.internals.running import Running, replaced

if TYPE_CHECKING:
    from stackconf_ogx.internals.running import Impl, Tell, Wanted

_STORES = {
    "inference": "model_store",
    "safety": "shield_store",
    "vector_io": "vector_db_store",
    "datasetio": "dataset_store",
    "scoring": "scoring_function_store",
    "eval": "benchmark_store",
    "tool_runtime": "tool_store",
}
"""What `CommonRoutingTableImpl.initialize` sets on each provider, by api."""


class LlamaStack02Server(Running):
    """One llama-stack 0.2.12 in this process."""

    kinds: ClassVar[Mapping[str, str]] = {
        "inference": "model",
        "safety": "shield",
        "vector_io": "vector_db",
        "datasetio": "dataset",
        "scoring": "scoring_function",
        "eval": "benchmark",
        "tool_runtime": "tool_group",
    }
    resources: ClassVar[Mapping[str, tuple[str, str]]] = {
        "models": ("inference", "model_id"),
        "shields": ("safety", "shield_id"),
        "vector_dbs": ("vector_io", "vector_db_id"),
        "datasets": ("datasetio", "dataset_id"),
        "scoring_fns": ("scoring", "scoring_fn_id"),
        "benchmarks": ("eval", "benchmark_id"),
        "tool_groups": ("tool_runtime", "toolgroup_id"),
    }
    # `initialize` is `health`, and each costs what setting up a connection with TLS costs.
    asked_when_made = frozenset({"inference/remote::ollama"})
    holding = frozenset({"vector_db", "dataset"})

    def __init__(self, wanted: Wanted, tell: Tell) -> None:
        super().__init__(wanted, tell)
        # `server.server` is the whole server; `stack` constructs the providers, `resolver` makes each.
        # `routing_tables.common` tells a provider of an object that is registered with it.
        # `providers` answers `/v1/providers`.
        from llama_stack.apis.providers import ListProvidersResponse, ProviderInfo
        from llama_stack.distribution import distribution, providers, resolver, stack
        from llama_stack.distribution.datatypes import StackRunConfig
        from llama_stack.distribution.routing_tables import common, toolgroups
        from llama_stack.distribution.server import server

        self.resolver, self.routing, self.file_class = resolver, common, StackRunConfig
        self._server, self._stack, self._providers = server, stack, providers
        self._tools, self.distribution = toolgroups, distribution
        self._register_resources = stack.register_resources
        self._answers = ListProvidersResponse, ProviderInfo
        self._constructing: Future[Any] | None = None
        self._given_up = False

    async def start(self) -> None:
        """Run the server's own `main` in a thread, up to the point where it would listen.

        It constructs the providers on this loop, on which they will be asked, and not on one of its own
        that ends before the first request.
        """
        loop = asyncio.get_running_loop()
        arguments = Namespace(config=str(self._wanted.path), template=None, port=None, env=None)
        listening: dict[str, Any] = {}

        def main() -> None:
            with own_log(), self._seams(loop, listening):
                try:
                    self._server.main(arguments)
                except SystemExit as error:
                    raise RuntimeError("llama-stack refused the file; its log says why") from error

        try:
            await asyncio.to_thread(main)
        except asyncio.CancelledError:  # the thread ends with what it waits for
            self._given_up = True
            if self._constructing is not None:
                self._constructing.cancel()
            raise
        await self._enter(listening["app"])

    async def stop(self) -> None:
        """And what outlives the providers in this process, so that the next server begins afresh."""
        await super().stop()
        # The class keeps them, and not the object.
        self._tools.ToolGroupsRoutingTable.toolgroups_to_tools.clear()
        self._tools.ToolGroupsRoutingTable.tool_to_toolgroup.clear()
        telemetry = sys.modules.get("llama_stack.providers.inline.telemetry.meta_reference.telemetry")
        if telemetry is not None and telemetry._TRACER_PROVIDER is not None:  # noqa: SLF001 (set once for good)
            await asyncio.to_thread(_forget_tracers, telemetry)

    @contextmanager
    def _seams(self, loop: asyncio.AbstractEventLoop, listening: dict[str, Any]) -> Iterator[None]:
        import uvicorn

        construct = self._stack.construct_stack

        async def construct_here(config: Any) -> Any:
            self._config = config
            if self._given_up:
                raise asyncio.CancelledError
            self._constructing = asyncio.run_coroutine_threadsafe(construct(config), loop)
            self.impls = await asyncio.wrap_future(self._constructing)
            return self.impls

        with ExitStack() as seams:
            # What stackconf resolved stands for what the server would make of the file's references.
            seams.enter_context(replaced(self._server, "replace_env_vars", lambda _: dict(self._wanted.data)))
            # Its log must not have what its own redaction lets through.
            seams.enter_context(
                replaced(self._server, "redact_sensitive_fields", lambda _: dict(self._wanted.shown))
            )
            seams.enter_context(replaced(self._server, "construct_stack", construct_here))
            seams.enter_context(replaced(self._stack, "register_resources", self._register_each))
            seams.enter_context(replaced(self._stack, "ProviderImpl", self._telling()))
            seams.enter_context(replaced(uvicorn, "run", listening.update))
            seams.enter_context(self._watched())
            yield

    def _telling(self) -> type:
        """Upstream's `/v1/providers`, with the configurations in force, and the health of each provider
        under its own name: upstream looks the health up by id among apis.
        """
        response, info = self._answers
        tell = self._tell

        class Telling(self._providers.ProviderImpl):  # type: ignore[misc, name-defined]
            async def list_providers(self) -> Any:
                return response(data=[info(**each) for each in await tell()])

        return Telling

    def link(self, impl: Impl, api: str, table: Any) -> None:
        """As `CommonRoutingTableImpl.initialize`."""
        setattr(impl, _STORES[api], table)

    async def settle(self, key: str, impl: Impl, wanted: Wanted) -> None:
        """And the sessions of agents that are kept in memory, which is where upstream's clients have them."""
        await super().settle(key, impl, wanted)
        kept = getattr(self.current(key), "in_memory_store", None)
        if kept is not None and hasattr(impl, "in_memory_store"):
            impl.in_memory_store = kept

    async def join(self, key: str, wanted: Wanted) -> None:
        """And the scoring functions, which come from the provider."""
        await super().join(key, wanted)
        api, _, provider_id = key.partition("/")
        if api == "scoring":
            impl = self._tables[api].impls_by_provider_id[provider_id]
            for each in await impl.list_scoring_functions():
                copy = each.model_copy(update={"provider_id": provider_id})
                await self._tables[api].dist_registry.register(copy)

    def _behind_routers(self) -> frozenset[str]:
        return frozenset(self.kinds)

    def _protocol(self, spec: Any) -> type:
        found: type = self.resolver.api_protocol_map()[spec.api]
        return found


def _forget_tracers(telemetry: Any) -> None:
    """OpenTelemetry takes one provider of tracers and one of meters for a process, and llama-stack sets
    them with its first telemetry provider; a second one would write where the first one did.
    """
    import opentelemetry.metrics._internal as metrics
    from opentelemetry import trace
    from opentelemetry.util._once import Once

    telemetry._TRACER_PROVIDER.shutdown()  # noqa: SLF001
    telemetry._TRACER_PROVIDER = trace._TRACER_PROVIDER = None  # noqa: SLF001
    trace._TRACER_PROVIDER_SET_ONCE = Once()  # noqa: SLF001
    metrics._METER_PROVIDER, metrics._METER_PROVIDER_SET_ONCE = None, Once()  # noqa: SLF001
