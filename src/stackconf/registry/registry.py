"""The registry: who owns which provider type, and the hooks of each owner."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from stackconf.errors import PluginLoadError, StackconfError, UnknownName
from stackconf.redact import described
from stackconf.registry import known
from stackconf.registry.hooks import (
    OwnerHooks,
    Plugin,
    implements_discovery,
    implements_provider_hooks,
    is_users_interrupt,
    plugin_from,
)
from stackconf.registry.loading import config_class_of, in_time, load
from stackconf.registry.metadata import (
    PLUGINS,
    PROVIDERS,
    RUNTIMES,
    Advertised,
    DisabledPlugins,
    installed,
    marked,
)
from stackconf.suggest import closest, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from stackconf.fields import ClassPlan
    from stackconf.runtimes import RuntimeServer
    from stackconf.stackfile.model import StackFile
    from stackconf.types import Accelerated, Issue, ProviderType


_MOST_NAMES = 8
"""How many names a hint lists."""


@frozen(eq=False)
class Owned:
    """A provider type ready for use: its declaration, its config class and its owner's hooks."""

    kind: ProviderType
    config_class: type[BaseModel]
    plan: ClassPlan
    hooks: OwnerHooks

    def accelerators(self, provider: str, config: Mapping[str, Any]) -> Accelerated:
        """Whether a provider that the stack file configures so uses this machine's accelerators.

        Raises `HookError`, without what the plugin said: it saw the values of secrets.
        """
        given = self.kind.accelerators
        if not callable(given):
            return given
        try:
            wants: object = given(config)
        except BaseException as error:
            if is_users_interrupt(error):
                raise
            problem = f"raised {type(error).__name__}"
            raise self.hooks.owner.failed("accelerators", problem, provider) from None
        if isinstance(wants, bool):
            return wants
        if wants == "little":
            return "little"
        problem = f"gave {type(wants).__name__}, not True, False or 'little'"
        raise self.hooks.owner.failed("accelerators", problem, provider)


@frozen(eq=False)
class _Runtime:
    """What hosts the providers of one stack: the plugin that it gave for it."""

    name: str
    plugin: Plugin
    apis: frozenset[str]
    issues: Mapping[str, tuple[Issue, ...]]
    """By provider; those of none under an empty text."""
    absent: Mapping[str, str]


@frozen
class Missing:
    """Why a provider type has no owner, and what would give it one."""

    code: str
    message: str
    hint: str = ""


class Registry:
    """Plugins by what they own. Nothing is imported until a type is asked for.

    `plugins` are live objects, `files` single Python files; both own what they declare in
    `provides`. With `entry_points=False` nothing installed is looked at, which tests want.

    >>> registry = Registry(entry_points=False)
    >>> registry.find("inference", "remote::ollama").code
    'unknown-type'
    """

    def __init__(
        self,
        *,
        plugins: Iterable[object] = (),
        files: Sequence[str | Path] = (),
        entry_points: bool = True,
        disabled: DisabledPlugins | None = None,
    ) -> None:
        self.problems: list[PluginLoadError] = []
        """Plugins that could not be loaded and are not some stack's owner: reported, not fatal."""
        self._entry_points = entry_points
        self._disabled = disabled or DisabledPlugins()
        self._advertised: list[Advertised] | None = None
        self._advertised_types: dict[str, list[Advertised]] = {}
        self._loaded: dict[tuple[str, str], Plugin | PluginLoadError] = {}
        self._direct: list[Plugin] = []
        self._direct_types: dict[str, list[Plugin]] = {}
        self._hooks: dict[int, OwnerHooks] = {}
        self._owned: dict[tuple[str, str], Owned | Missing | PluginLoadError] = {}
        self._cross_cutting: list[Plugin] | None = None
        self._runtime: _Runtime | None = None
        self._files = [str(file) for file in files]
        for implementation in plugins:
            self.register(implementation)
        for file in self._files:
            self._register_file(file)

    def register(self, implementation: object, *, name: str = "") -> Plugin:
        """Add a live plugin object. Raises `PluginLoadError` when it cannot serve."""
        label = name or getattr(implementation, "__name__", type(implementation).__name__)
        plugin = plugin_from(label, implementation)
        self._add(plugin)
        return plugin

    def advertised(self) -> list[Advertised]:
        """Every entry point of every group, enabled or not, from metadata alone; read once."""
        if self._advertised is None:
            found = installed() if self._entry_points else []
            self._advertised = marked(found, self._disabled.names())
            for entry in self._advertised:
                if entry.group == PROVIDERS:
                    self._advertised_types.setdefault(entry.name, []).append(entry)
        return self._advertised

    def detector_files(self) -> list[str]:
        """Of the files given by path, those that look at the machine."""
        loaded = [plugin for plugin in self._direct if plugin.name in self._files]
        return [plugin.name for plugin in loaded if implements_discovery(plugin.implementation)]

    def runtime(self, name: str) -> Plugin:
        """The runtime of that name, imported: an object with `provider_types(stack)`, see `hosted`.

        Raises `UnknownName` when no enabled plugin has it, `PluginLoadError` when it cannot serve.
        """
        entries = [entry for entry in self._enabled(RUNTIMES) if entry.name == name]
        if len(entries) > 1:
            raise PluginLoadError(
                name,
                f"{len(entries)} plugins bring this runtime: {', '.join(map(str, entries))};"
                f" run `stackconf plugins disable {entries[-1].distribution}`",
            )
        if not entries:
            raise UnknownName(self._no_runtime(name))
        loaded = self._load(entries[0])
        if isinstance(loaded, PluginLoadError):
            raise loaded
        if not callable(getattr(loaded.implementation, "provider_types", None)):
            raise PluginLoadError(
                name,
                "is no runtime: it has no `provider_types(stack)`",
                distribution=loaded.distribution,
                version=loaded.version,
            )
        return evolve(loaded, name=name)

    def _no_runtime(self, name: str) -> str:
        there = [entry.name for entry in self.advertised() if entry.group == RUNTIMES]
        if name in there:
            return f"the plugin of the runtime `{name}` is disabled; `stackconf plugins list` shows which"
        hint = did_you_mean(name, {*there, *known.RUNTIMES})
        if name in known.RUNTIMES:
            hint = f"install `{known.RUNTIMES[name]}`"
        return f"no installed plugin brings the runtime `{name}`; {hint or f'there is {_listed(there)}'}"

    def hosted(self, runtime: Plugin, stack: StackFile) -> Registry:
        """This registry for a stack whose providers `runtime` hosts: it then owns every type, and what
        else is installed owns none.

        `runtime.implementation.provider_types(stack)` gives a plugin with `provides`, and hooks for
        those types. It may have `apis` (names that have no provider too), `issues` (what is wrong with
        the file beyond the configs of its providers) and `absent` (why a type is not there, by key).
        Raises `PluginLoadError` when there is none to be had.
        """
        own = copy(self)
        own._owned, own._hooks = {}, {}  # noqa: SLF001 (its own)
        own._runtime = _runtime_of(runtime, stack)  # noqa: SLF001
        return own

    @property
    def runtime_name(self) -> str | None:
        """The runtime that hosts the stack, `None` where the plugins act themselves."""
        return None if self._runtime is None else self._runtime.name

    def runtime_server(self) -> RuntimeServer | None:
        """The server that the runtime has for its stack, to be started; `None` where it has none."""
        make = getattr(self._runtime.plugin.implementation, "server", None) if self._runtime else None
        if make is None:
            return None
        made: RuntimeServer = make()
        return made

    @property
    def runtime_issues(self) -> tuple[Issue, ...]:
        """What the runtime finds wrong with the stack file beyond its providers."""
        return self.runtime_issues_of("")

    def runtime_issues_of(self, provider: str) -> tuple[Issue, ...]:
        """What the runtime finds wrong with one provider of the stack file beyond its config."""
        return () if self._runtime is None else self._runtime.issues.get(provider, ())

    def apis(self) -> set[str]:
        """Every api that something installed serves, and those of upstream; those of the runtime
        where one is chosen.
        """
        if self._runtime is not None:
            return set(self._runtime.apis)
        served = {entry.name.split("/", 1)[0] for entry in self.advertised() if entry.group == PROVIDERS}
        direct = {key.split("/", 1)[0] for key in self._direct_types}
        return served | direct | known.APIS

    def type_keys(self) -> list[str]:
        """`api/provider_type` of every type with an enabled owner, sorted."""
        if self._runtime is not None:
            return sorted(self._runtime.plugin.kinds)
        served = {entry.name for entry in self._enabled(PROVIDERS)}
        return sorted(served | self._direct_types.keys())

    def find(self, api: str, provider_type: str) -> Owned | Missing | PluginLoadError:
        """The owner of a type, loaded; or why there is none. The answer is kept."""
        key = (api, provider_type)
        found = self._owned.get(key)
        if found is None:
            found = self._owned[key] = self._find(api, provider_type)
        return found

    def find_loaded(self, api: str, provider_type: str) -> Owned | None:
        """The owner if it was found before; never loads anything."""
        found = self._owned.get((api, provider_type))
        return found if isinstance(found, Owned) else None

    def cross_cutting(self) -> list[Plugin]:
        """The plugins that see every provider. The built-in detectors have no hook for providers
        and are not imported here.
        """
        if self._cross_cutting is None:
            loaded = [self._load(entry) for entry in self._enabled(PLUGINS) if not entry.builtin]
            self.problems += [each for each in loaded if isinstance(each, PluginLoadError)]
            plugins = [each for each in loaded if isinstance(each, Plugin)]
            plugins += self._direct
            self._cross_cutting = [
                each for each in plugins if not each.provides and self._sees_providers(each)
            ]
        return self._cross_cutting

    def _sees_providers(self, plugin: Plugin) -> bool:
        if not implements_provider_hooks(plugin.implementation):
            return False
        try:
            OwnerHooks(plugin)
        except PluginLoadError as error:
            self.problems.append(error)
            return False
        return True

    def _enabled(self, group: str) -> list[Advertised]:
        return [entry for entry in self.advertised() if entry.group == group and entry.enabled]

    def _add(self, plugin: Plugin) -> None:
        self._direct.append(plugin)
        for key in plugin.kinds:
            self._direct_types.setdefault(key, []).append(plugin)
        self._owned.clear()
        self._cross_cutting = None if not plugin.provides else self._cross_cutting
        if not plugin.provides:
            self._hooks.clear()

    def _register_file(self, file: str) -> None:
        try:  # whoever names a file waits for it; the command line has a deadline for all of them
            self._add(load(Advertised(PLUGINS, file, file)))
        except PluginLoadError as error:
            self.problems.append(error)

    def _load(self, entry: Advertised) -> Plugin | PluginLoadError:
        key = (entry.distribution, entry.target)
        if key not in self._loaded:
            self._loaded[key] = in_time(load, entry, entry)
        return self._loaded[key]

    def _find(self, api: str, provider_type: str) -> Owned | Missing | PluginLoadError:
        key = f"{api}/{provider_type}"
        if self._runtime is not None:
            served = key in self._runtime.plugin.kinds
            return self._own(key, self._runtime.plugin) if served else self._not_hosted(api, provider_type)
        self.advertised()
        direct = self._direct_types.get(key, [])
        entries = self._advertised_types.get(key, [])
        enabled = [entry for entry in entries if entry.enabled]
        if len(direct) + len(enabled) > 1:
            return _contested(key, direct, enabled)
        if direct:
            return self._own(key, direct[0])
        if enabled:
            loaded = self._load(enabled[0])
            return loaded if isinstance(loaded, PluginLoadError) else self._own(key, loaded)
        return self._missing(api, provider_type, entries)

    def _own(self, key: str, plugin: Plugin) -> Owned | PluginLoadError:
        kind = plugin.kinds.get(key)
        if kind is None:
            problem = f"advertises `{key}`, but its `provides` does not declare it"
            return PluginLoadError(
                plugin.name, problem, distribution=plugin.distribution, version=plugin.version
            )
        find = partial(config_class_of, kind)
        try:
            # Only an import is worth a thread of its own here: it may run anything.
            named = isinstance(kind.config_class, str)
            found = in_time(find, plugin, plugin) if named else find(plugin)
            if isinstance(found, PluginLoadError):
                return found
            return Owned(kind, *found, self._hooks_of(plugin))
        except PluginLoadError as error:
            return error

    def _hooks_of(self, plugin: Plugin) -> OwnerHooks:
        key = id(plugin.implementation)
        if key not in self._hooks:
            self._hooks[key] = OwnerHooks(plugin, self.cross_cutting())
        return self._hooks[key]

    def _missing(self, api: str, provider_type: str, disabled: Sequence[Advertised]) -> Missing:
        key = f"{api}/{provider_type}"
        if disabled:
            entry = disabled[0]
            return Missing(
                "disabled-plugin",
                f"its plugin {entry} is disabled",
                f"run `stackconf plugins enable {entry.distribution}`",
            )
        if api not in self.apis() and (near := closest(api, self.apis())):
            return Missing("unknown-api", f"unknown api `{api}`", f"did you mean `{near}`?")
        served = [each.split("/", 1) for each in self.type_keys()]
        near = closest(provider_type, [kind for other, kind in served if other == api])
        if near:
            return Missing(
                "unknown-type", f"unknown provider type `{provider_type}`", f"did you mean `{near}`?"
            )
        hint = self._broken_files() or _what_provides(key, served)
        return Missing("unknown-type", f"no installed plugin provides `{key}`", hint)

    def _not_hosted(self, api: str, provider_type: str) -> Missing:
        assert self._runtime is not None  # noqa: S101 (asked only where one is chosen)
        key = f"{api}/{provider_type}"
        label = self._runtime.plugin.label
        if key in self._runtime.absent:
            return Missing("unknown-type", self._runtime.absent[key])
        if api not in self._runtime.apis:
            near = closest(api, self._runtime.apis)
            hint = f"did you mean `{near}`?" if near else f"it has {', '.join(sorted(self._runtime.apis))}"
            return Missing("unknown-api", f"{label} has no api `{api}`", hint)
        served = [each.split("/", 1) for each in self._runtime.plugin.kinds]
        own = [kind for other, kind in served if other == api]
        if near := closest(provider_type, own):
            return Missing(
                "unknown-type", f"unknown provider type `{provider_type}`", f"did you mean `{near}`?"
            )
        elsewhere = sorted({f"`{other}`" for other, kind in served if kind == provider_type})
        hint = f"the type exists under {', '.join(elsewhere)}" if elsewhere else ""
        if not elsewhere:
            hint = f"for `{api}` it has {_few(own)}" if own else f"`{api}` takes no provider"
        return Missing("unknown-type", f"{label} has no provider type `{key}`", hint)

    def _broken_files(self) -> str:
        """The advice that a plugin file which could not be loaded may have had the type."""
        broken = [str(error) for error in self.problems if error.plugin in self._files]
        return f"perhaps this one does: {broken[0]}" if broken else ""


def _runtime_of(runtime: Plugin, stack: StackFile) -> _Runtime:
    def refuse(problem: str) -> PluginLoadError:
        return PluginLoadError(
            runtime.name, problem, distribution=runtime.distribution, version=runtime.version
        )

    implementation: Any = runtime.implementation
    try:
        given = implementation.provider_types(stack)
        plugin = plugin_from(runtime.name, given, distribution=runtime.distribution, version=runtime.version)
        served = {kind.api for kind in plugin.provides}
        issues: dict[str, tuple[Issue, ...]] = {}
        for issue in getattr(given, "issues", ()):
            issues[issue.provider] = (*issues.get(issue.provider, ()), issue)
        return _Runtime(
            runtime.name,
            evolve(plugin, alias=getattr(given, "label", "")),
            frozenset(getattr(given, "apis", ())) | served,
            issues,
            dict(getattr(given, "absent", {})),
        )
    except StackconfError:
        raise
    except Exception as error:
        raise refuse(f"its provider types: {described(error)}") from error


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _few(names: Collection[str]) -> str:
    if len(names) <= _MOST_NAMES:
        return _listed(names)
    return f"{len(names)} others; `stackconf providers list --types` lists them"


def _contested(key: str, direct: Sequence[Plugin], entries: Sequence[Advertised]) -> Missing:
    owners = [f"`{plugin.name}`" for plugin in direct] + [str(entry) for entry in entries]
    names = [entry.distribution or entry.name for entry in entries]
    return Missing(
        "contested-type",
        f"{len(owners)} plugins own `{key}`: {', '.join(owners)}",
        f"run `stackconf plugins disable {names[-1]}`" if names else "register only one of them",
    )


def _what_provides(key: str, served: Iterable[Sequence[str]]) -> str:
    distribution = known.DISTRIBUTIONS.get(key)
    if distribution:
        return f"install `{distribution}`"
    api, provider_type = key.split("/", 1)
    elsewhere = sorted({f"`{other}`" for other, kind in served if kind == provider_type and other != api})
    also = f"; the type exists under {', '.join(elsewhere)}" if elsewhere else ""
    return (
        f"install a distribution with the `{PROVIDERS}` entry point `{key}`, or give `--plugin FILE.py`{also}"
    )
