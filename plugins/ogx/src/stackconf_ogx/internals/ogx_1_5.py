"""OGX 1.5: what is taken from inside it, and why."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import ValidationError

from stackconf_ogx.internals.base import EXCLUSIVE, Internals, Kind, MissingVariable, Spec, quietly

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from stackconf.stackfile.env import Grammar
    from stackconf_ogx.internals.running import Running, Tell, Wanted

_KV = "kv"
_SQL = "sql"


class Ogx15(Internals):
    """The inside of OGX 1.5."""

    grammar: Grammar = "new"
    package = "ogx"
    knows_modules = True
    resources: ClassVar[Mapping[str, str]] = {}
    serves_all_listed = False
    wants_tls = True
    logs_requests = True

    def __init__(self, version: str) -> None:
        with quietly():
            # `ogx.core.distribution` has the registry of provider types, and which apis take none.
            # `ogx.core.datatypes` has the class of a whole file, so that what it refuses is told.
            # `ogx.core.stack` replaces references, with its special cases for conditional parts.
            # `ogx.core.configure` migrates old keys before a file is judged.
            # `ogx.core.storage.datatypes` tells a reference to a store from other mappings.
            from ogx.core import configure, datatypes, distribution, external, stack
            from ogx.core.storage import datatypes as storage
            from ogx_api import Api
        self._distribution, self._stack, self._configure = distribution, stack, configure
        self._external, self._storage, self._api = external, storage, Api
        self.label = f"ogx {version}"
        self.file_class: type[BaseModel] = datatypes.StackConfig
        # The routers are made by the server where there is a provider behind them.
        self.routed = {
            pair.routing_table_api.value: pair.router_api.value
            for pair in distribution.builtin_automatically_routed_apis()
        }
        self.own_apis = frozenset(api.value for api in distribution.INTERNAL_APIS)
        # Those that run in worker processes are known to the pool of workers for good.
        self.restarting = EXCLUSIVE | {
            f"{api.value}/{name}"
            for api, types in distribution.get_provider_registry().items()
            for name, spec in types.items()
            if getattr(spec, "execution_mode", "") == "worker"
        }

    def server(self, wanted: Wanted, tell: Tell) -> Running:
        """See `ogx_1_5_server`."""
        from stackconf_ogx.internals.ogx_1_5_server import Ogx15Server

        return Ogx15Server(wanted, tell)

    def builtin(self) -> list[Spec]:
        """The registry without a config: the types that come along and nothing external."""
        with quietly():
            registry = self._distribution.get_provider_registry()
        return [_spec(each) for types in registry.values() for each in types.values()]

    def apis(self) -> frozenset[str]:
        """The members of `Api`, to which `load_apis` adds."""
        return frozenset(api.value for api in self._api)

    def spec_of_file(self, data: Mapping[str, Any], api: str, kind: Kind, name: str) -> Spec:
        """As `get_external_providers_from_dir`, which stops at the first file that is wrong."""
        read = (
            self._distribution._load_remote_provider_spec(data, self._api(api))  # noqa: SLF001
            if kind == "remote"
            else self._distribution._load_inline_provider_spec(data, self._api(api), name)  # noqa: SLF001
        )
        return _spec(read, provider_type=f"{kind}::{name}")

    def spec_of_module(self, module: str, api: str, provider_type: str) -> Spec | None:
        """As `get_external_providers_from_module`, which stops at the first module that is wrong."""
        found = importlib.import_module(f"{module.split('==', 1)[0]}.provider").get_provider_spec()
        several = found if isinstance(found, list) else [found]
        for each in several:
            if not isinstance(found, list) or each.provider_type == provider_type:
                return _spec(each, api=api, provider_type=provider_type)
        return None

    def load_apis(self, folder: Path) -> list[Spec]:
        """`load_external_apis` adds the apis to `Api`, for the whole process, as the server does."""
        found = self._external.load_external_apis(SimpleNamespace(external_apis_dir=folder))
        specs = []
        for each in found.values():
            try:
                module = importlib.import_module(each.module)
                specs += [_spec(spec) for spec in module.available_providers()]
            except (ImportError, AttributeError):  # then it has external providers only
                continue
        return specs

    def replaced(self, data: dict[str, Any]) -> dict[str, Any]:
        """As `parse_and_maybe_upgrade_config` up to the point where the class reads it."""
        with suppress(AttributeError, TypeError):  # of a file whose `storage` the class will refuse
            self._configure._migrate_prompts_kv_to_sql(data)  # noqa: SLF001 (the old form is right too)
        data["version"] = 2  # whatever the file says
        try:
            with quietly():
                replaced = self._stack.replace_env_vars(data)
        except self._stack.EnvVarError as error:
            raise MissingVariable(error.var_name, error.path) from None
        cast: dict[str, Any] = self._stack.cast_distro_name_to_string(replaced)
        return cast

    def by_looks(self, text: str) -> object:
        """The server guesses types: the key `0123` becomes a number, which its own class refuses."""
        guessed: object = self._stack._convert_string_to_proper_type(text)  # noqa: SLF001
        return guessed

    def store_families(self, data: Mapping[str, Any]) -> Mapping[str, str]:
        """The types of `storage.backends` begin with `kv_` or `sql_`; the class has two of its own."""
        storage = data.get("storage")
        given = (
            {"backends": storage["backends"]} if isinstance(storage, dict) and "backends" in storage else {}
        )
        try:
            backends = self._storage.StorageConfig.model_validate(given).backends
        except ValidationError:
            return {}
        return {name: str(each.type.value).split("_", 1)[0] for name, each in backends.items()}

    def store_reference(self, value: object) -> tuple[str, str] | None:
        """Every `SqlStoreReference` names tables, every `KVStoreReference` keys."""
        if isinstance(value, self._storage.SqlStoreReference):
            return value.backend, _SQL
        if isinstance(value, self._storage.KVStoreReference):
            return value.backend, _KV
        return None


def _spec(given: Any, *, api: str = "", provider_type: str = "") -> Spec:
    return Spec(
        api=api or given.api.value,
        provider_type=provider_type or given.provider_type,
        config_class=given.config_class,
        module=given.module or "",
        packages=tuple(given.pip_packages),
        needs=tuple(each.value for each in given.api_dependencies),
        remote=hasattr(given, "adapter_type"),
        deprecated=given.deprecation_warning or "",
        refused=given.deprecation_error or "",
    )


def open_internals(version: str) -> Internals:
    """The inside of the installed version."""
    return Ogx15(version)
