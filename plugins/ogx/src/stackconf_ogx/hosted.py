"""The provider types of one stack file, as its server has them: the plugin that stackconf asks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from stackconf import Applied, Issue, ProviderType, UnknownName, hookimpl
from stackconf.fields import plan_with
from stackconf.runtimes import Listens
from stackconf_ogx import checks
from stackconf_ogx.external import external_types
from stackconf_ogx.internals.base import enabled, quietly
from stackconf_ogx.policy import Policy, bad, operators
from stackconf_ogx.wholefile import WholeFile

if TYPE_CHECKING:
    from stackconf import Provider, StackFile
    from stackconf.types import UpdateClass
    from stackconf_ogx.internals.base import Internals, Spec
    from stackconf_ogx.internals.running import Wanted
    from stackconf_ogx.policy import Wishes
    from stackconf_ogx.runtimes import UpstreamRuntime
    from stackconf_ogx.server import UpstreamServer

_log = logging.getLogger("stackconf.ogx")

_PORT = 8321
_NOT_RUNNING = "no server that stackconf runs has it; `stackconf export` writes the file to start one with"


class HostedTypes:
    """What one server has for one stack file."""

    stackconf_api = 1

    def __init__(
        self,
        internals: Internals,
        policies: Mapping[str, Policy],
        stack: StackFile,
        runtime: UpstreamRuntime,
    ) -> None:
        self._internals, self._stack, self._runtime = internals, stack, runtime
        self.label = internals.label
        self._file = WholeFile(internals, stack)
        external = external_types(internals, stack, self._file.data)
        self.apis = internals.apis()
        self.absent: Mapping[str, str] = external.absent
        self.specs: dict[str, Spec] = {spec.key: spec for spec in internals.builtin()} | external.specs
        """Every type, by key."""
        self._operators = operators(stack, self.specs, self.label)
        self.issues: list[Issue] = [*self._file.issues, *external.issues, *self._operators.issues]
        named = {entry.provider.type_key for entry in stack.providers} | self._operators.wishes.keys()
        self.policies: dict[str, Policy] = {key: policies.get(key, Policy()) for key in self.specs}
        """What users may set of each type."""
        classes = {key: self._class_of(key) for key in sorted(named & self.specs.keys())}
        for key, wishes in self._operators.wishes.items():
            self.policies[key] = self._extended(key, wishes, classes[key])
        self.provides = tuple(self._kind(spec, classes.get(key)) for key, spec in self.specs.items())
        self.issues += self._of_providers(classes)
        self.issues += self._only_at_start()

    @hookimpl
    def validate_user_config(
        self, provider: Provider, user_config: Mapping[str, object], config: BaseModel
    ) -> list[Issue]:
        """What the class lets pass and the server does not; and what would send a key elsewhere."""
        policy = self.policies[provider.type_key]
        return [
            *checks.unusable_defaults(config),
            *checks.bad_addresses(config, policy),
            *checks.redirected_credentials(provider, user_config, config, policy),
            *checks.bad_stores(config, self._internals, self._file.families, told=self._file.has_backends),
        ]

    @hookimpl
    def apply_config(self, provider: Provider, config: BaseModel | None) -> Applied:
        """Have the server that runs here use it, or say that there is none."""
        server = self._runtime.server
        return Applied(pending=_NOT_RUNNING) if server is None else server.apply(self, provider, config)

    def server(self) -> UpstreamServer:
        """The server for this file, to be started in this process."""
        from stackconf_ogx.server import UpstreamServer

        workers = self._server_section.get("workers")
        if isinstance(workers, int) and workers > 1:
            _log.warning("`server.workers` is %d, which counts for nothing here: one process serves", workers)
        self._runtime.server = server = UpstreamServer(self, self._internals.server)
        return server

    @property
    def _server_section(self) -> Mapping[str, Any]:
        section = self._file.data.get("server")
        return section if isinstance(section, dict) else {}

    @property
    def logs_requests(self) -> bool:
        """Whether the server's own log has a line for each request."""
        return self._internals.logs_requests

    @property
    def listens(self) -> Listens:
        """Where the file says that the server listens."""
        found = self._server_section
        ciphers = (found.get("tls_config") or {}).get("ciphers")
        return Listens(
            host=found.get("host"),
            port=int(found.get("port") or _PORT),
            certificate=found.get("tls_certfile"),
            key=found.get("tls_keyfile"),
            authority=found.get("tls_cafile"),
            ciphers=":".join(ciphers or ()),
            clear=bool(found.get("insecure")) or not self._internals.wants_tls,
        )

    def wanted(self, configs: Mapping[str, BaseModel]) -> Wanted:
        """The file with the effective configurations of its providers, by `api/provider_id`. One that has
        none is left out.
        """
        from stackconf.resolve.render import SHOWN
        from stackconf_ogx.internals.running import Wanted

        def filled(config_of: Callable[[BaseModel], Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
            return {
                api: [
                    {**each, "config": config_of(configs[key])} if enabled(each) else each
                    for each in entries
                    if not enabled(each) or (key := f"{api}/{each['provider_id']}") in configs
                ]
                for api, entries in (self._file.data.get("providers") or {}).items()
            }

        data = {**self._file.data, "providers": filled(_plain)}
        shown = {"apis": data.get("apis"), "providers": filled(SHOWN.render)}
        return Wanted(Path(self._stack.name).absolute(), data, shown)

    def provider(self, key: str) -> Provider | None:
        """A provider of the file, or `None`."""
        return next((each.provider for each in self._stack.providers if each.key == key), None)

    def restarts(self, type_key: str) -> bool:
        """Whether a change of such a provider needs the whole server set up anew."""
        return type_key in self._internals.restarting

    def import_modules(self, type_key: str) -> None:
        """Import what a provider of a type is made of, which may take seconds."""
        import_module(self.specs[type_key].module)

    def _class_of(self, key: str) -> type[BaseModel] | None:
        """The config class of a type; `None` where it cannot be had, which whoever needs it will say."""
        module, _, name = self.specs[key].config_class.rpartition(".")
        try:
            with quietly():
                found = getattr(import_module(module), name)
        except Exception:  # noqa: BLE001 (somebody's module may raise anything)
            return None
        return found if isinstance(found, type) and issubclass(found, BaseModel) else None

    def _kind(self, spec: Spec, config_class: type[BaseModel] | None) -> ProviderType:
        module, _, name = spec.config_class.rpartition(".")
        update: UpdateClass = "restart" if self.restarts(spec.key) else "reload"
        return ProviderType(
            spec.api,
            spec.provider_type,
            config_class or f"{module}:{name}",
            api_dependencies=spec.needs,
            user_fields=self.policies[spec.key].user_fields(update),
            update=update,
            in_process=True,
        )

    def _only_at_start(self) -> Iterable[Issue]:
        """What is another than when the server that runs here was started, and is read only then."""
        server = self._runtime.server
        if server is None or server.path != self._stack.name:
            return
        for key in server.data.keys() | self._file.data.keys():
            if key != "providers" and server.data.get(key) != self._file.data.get(key):
                yield Issue(
                    f"`{key}` is another since the server was started, which reads it only then",
                    level="warning",
                    path=key,
                    hint="it counts from the next start on",
                    code="only-at-start",
                    where=self._stack.document.nearest((key,)),
                )

    @property
    def data(self) -> Mapping[str, Any]:
        """The file as the server's own class reads it."""
        return self._file.data

    @property
    def path(self) -> str:
        """The stack file."""
        return self._stack.name

    def _extended(self, key: str, wishes: Wishes, config_class: type[BaseModel] | None) -> Policy:
        """The policy of a type with what the operator wants of it, as far as the class has it."""
        fitting: dict[str, list[str]] = {"allow": [], "allow_without_credential": [], "deny": []}
        for name, number, path in wishes.paths():
            problem = "" if path == "*" and name == "deny" else _problem(config_class, path)
            if problem:
                self.issues.append(bad(self._stack, problem, (key, name, number)))
            else:
                fitting[name].append(path)
        allow, guarded, deny = fitting.values()
        return self.policies[key].extended(allow, guarded, deny)

    def _of_providers(self, classes: Mapping[str, type[BaseModel] | None]) -> Iterable[Issue]:
        apis = self._file.data.get("apis")
        listed = apis if isinstance(apis, list) else ()
        yield from checks.unserved_apis(self._stack, self._internals, listed)
        yield from checks.resources_of_nobody(self._stack, self._internals, self._file.data, listed)
        for entry in self._stack.providers:
            spec = self.specs.get(entry.provider.type_key)
            if spec is None:
                continue
            config_class = classes[spec.key]
            yield from checks.of_type(self._stack, entry, spec)
            yield from checks.missing_dependencies(self._stack, entry, spec, self._internals, listed)
            yield from checks.packages(self._stack, entry, spec, self._internals)
            if config_class is not None:
                yield from checks.guessed_types(self._stack, entry, config_class, self._internals)


def _plain(config: BaseModel) -> Mapping[str, Any]:
    """What layers gave, as the server's own class reads it; secrets stay objects of their type."""
    return config.model_dump(exclude_unset=True, by_alias=True)


def _problem(config_class: type[BaseModel] | None, path: str) -> str:
    if config_class is None:
        return ""  # the class cannot be had, which is said of the provider
    try:
        plan_with(config_class, {path: "reload"})
    except UnknownName as error:
        return str(error)
    return ""
