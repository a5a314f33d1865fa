"""llama-stack 0.2.12: what is taken from inside it, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from stackconf_ogx.internals.base import EXCLUSIVE, Internals, Kind, MissingVariable, Spec, quietly

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from stackconf.stackfile.env import Grammar
    from stackconf_ogx.internals.running import Running, Tell, Wanted


class LlamaStack02(Internals):
    """The inside of llama-stack 0.2.12."""

    grammar: Grammar = "old"
    package = "llama_stack"
    knows_modules = False
    resources: ClassVar[Mapping[str, str]] = {  # `stack.RESOURCES`, each with the api behind its table
        "models": "inference",
        "shields": "safety",
        "vector_dbs": "vector_io",
        "datasets": "datasetio",
        "scoring_fns": "scoring",
        "benchmarks": "eval",
        "tool_groups": "tool_runtime",
    }
    serves_all_listed = True
    wants_tls = False
    logs_requests = False
    # OpenTelemetry has one provider of tracers for a process.
    restarting = EXCLUSIVE | {"telemetry/inline::meta-reference"}

    def __init__(self, version: str) -> None:
        with quietly():  # pydantic warns of the defaults of its store configs, which never take effect
            # `distribution.distribution` has the registry of provider types, and which apis take none.
            # `distribution.datatypes` has the class of a whole file, so that what it refuses is told.
            # `distribution.stack` replaces references.
            from llama_stack.distribution import datatypes, distribution, stack
            from llama_stack.providers.datatypes import Api
        self._distribution, self._stack, self._api = distribution, stack, Api
        self.label = f"llama-stack {version}"
        self.file_class: type[BaseModel] = datatypes.StackRunConfig
        # The routers are made by the server where there is a provider behind them.
        self.routed = {
            pair.routing_table_api.value: pair.router_api.value
            for pair in distribution.builtin_automatically_routed_apis()
        }
        self.own_apis = frozenset({"inspect", "providers"})  # `providable_apis` leaves these out

    def server(self, wanted: Wanted, tell: Tell) -> Running:
        """See `llama_stack_0_2_server`."""
        from stackconf_ogx.internals.llama_stack_0_2_server import LlamaStack02Server

        return LlamaStack02Server(wanted, tell)

    def builtin(self) -> list[Spec]:
        """The registry without a config: the types that come along and nothing external."""
        with quietly():
            registry = self._distribution.get_provider_registry()
        return [_spec(each) for types in registry.values() for each in types.values()]

    def apis(self) -> frozenset[str]:
        """The members of `Api`."""
        return frozenset(api.value for api in self._api)

    def spec_of_file(self, data: Mapping[str, Any], api: str, kind: Kind, name: str) -> Spec:
        """As `get_provider_registry` with a folder, which stops at the first file that is wrong."""
        read = (
            self._distribution._load_remote_provider_spec(data, self._api(api))  # noqa: SLF001
            if kind == "remote"
            else self._distribution._load_inline_provider_spec(data, self._api(api), name)  # noqa: SLF001
        )
        return _spec(read, provider_type=f"{kind}::{name}")

    def spec_of_module(self, module: str, api: str, provider_type: str) -> Spec | None:  # noqa: ARG002
        """This version reads no `module:`."""
        return None

    def load_apis(self, folder: Path) -> list[Spec]:  # noqa: ARG002
        """This version has no external apis."""
        return []

    def replaced(self, data: dict[str, Any]) -> dict[str, Any]:
        """As the server's `main` up to the point where the class reads it."""
        try:
            with quietly():
                replaced: dict[str, Any] = self._stack.replace_env_vars(data)
        except self._stack.EnvVarError as error:
            raise MissingVariable(error.var_name, error.path) from None
        return replaced

    def by_looks(self, text: str) -> object:
        """What comes from the environment stays text in this version."""
        return text

    def store_families(self, data: Mapping[str, Any]) -> Mapping[str, str]:  # noqa: ARG002
        """This version has no storage backends."""
        return {}

    def store_reference(self, value: object) -> tuple[str, str] | None:  # noqa: ARG002
        """This version has no storage backends."""
        return None


def _spec(given: Any, *, provider_type: str = "") -> Spec:
    return Spec(
        api=given.api.value,
        provider_type=provider_type or given.provider_type,
        config_class=given.config_class,
        module=given.module,
        packages=tuple(given.pip_packages),
        needs=tuple(each.value for each in given.api_dependencies),
        remote=hasattr(given, "adapter"),
        deprecated=given.deprecation_warning or "",
        refused=given.deprecation_error or "",
    )


def open_internals(version: str) -> Internals:
    """The inside of the installed version."""
    return LlamaStack02(version)
