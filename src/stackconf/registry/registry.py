"""The registry: who owns which provider type, and the hooks of each owner."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import frozen

from stackconf.errors import PluginLoadError
from stackconf.registry import known
from stackconf.registry.hooks import (
    OwnerHooks,
    Plugin,
    implements_discovery,
    implements_provider_hooks,
    plugin_from,
)
from stackconf.registry.loading import config_class_of, in_time, load
from stackconf.registry.metadata import (
    PLUGINS,
    PROVIDERS,
    Advertised,
    DisabledPlugins,
    installed,
    marked,
)
from stackconf.suggest import closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from stackconf.types import ProviderType


@frozen(eq=False)
class Owned:
    """A provider type ready for use: its declaration, its config class and its owner's hooks."""

    kind: ProviderType
    config_class: type[BaseModel]
    hooks: OwnerHooks


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

    def apis(self) -> set[str]:
        """Every api that something installed serves, and those of upstream."""
        served = {entry.name.split("/", 1)[0] for entry in self.advertised() if entry.group == PROVIDERS}
        direct = {key.split("/", 1)[0] for key in self._direct_types}
        return served | direct | known.APIS

    def type_keys(self) -> list[str]:
        """`api/provider_type` of every type with an enabled owner, sorted."""
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
            config_class = in_time(find, plugin, plugin) if named else find(plugin)
            if isinstance(config_class, PluginLoadError):
                return config_class
            return Owned(kind, config_class, self._hooks_of(plugin))
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

    def _broken_files(self) -> str:
        """The advice that a plugin file which could not be loaded may have had the type."""
        broken = [str(error) for error in self.problems if error.plugin in self._files]
        return f"perhaps this one does: {broken[0]}" if broken else ""


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
