"""The provider types of one stack file, as its server has them: the plugin that stackconf asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from pydantic import BaseModel

from stackconf import Applied, Issue, ProviderType, UnknownName, hookimpl
from stackconf.fields import plan_with
from stackconf_ogx import checks
from stackconf_ogx.external import external_types
from stackconf_ogx.internals.base import quietly
from stackconf_ogx.policy import Policy, bad, operators
from stackconf_ogx.wholefile import WholeFile

if TYPE_CHECKING:
    from stackconf import Provider, StackFile
    from stackconf.types import UpdateClass
    from stackconf_ogx.internals.base import Internals, Spec
    from stackconf_ogx.policy import Wishes

_NOT_RUNNING = "no server that stackconf runs has it; `stackconf export` writes the file to start one with"


class HostedTypes:
    """What one server has for one stack file."""

    stackconf_api = 1

    def __init__(self, internals: Internals, policies: Mapping[str, Policy], stack: StackFile) -> None:
        self._internals, self._stack = internals, stack
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
    def apply_config(self) -> Applied:
        """There is no running server to change from here."""
        return Applied(pending=_NOT_RUNNING)

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
        update = self._update(spec.api)
        return ProviderType(
            spec.api,
            spec.provider_type,
            config_class or f"{module}:{name}",
            api_dependencies=spec.needs,
            user_fields=self.policies[spec.key].user_fields(update),
            update=update,
        )

    def _update(self, api: str) -> UpdateClass:
        """Behind a router a provider can be made anew and swapped; others have routes of their own."""
        return "reload" if api in self._internals.routed.values() else "restart"

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


def _problem(config_class: type[BaseModel] | None, path: str) -> str:
    if config_class is None:
        return ""  # the class cannot be had, which is said of the provider
    try:
        plan_with(config_class, {path: "reload"})
    except UnknownName as error:
        return str(error)
    return ""
