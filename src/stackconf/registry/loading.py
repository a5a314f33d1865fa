"""From a target in metadata to a live plugin object. Whatever goes wrong is a `PluginLoadError`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from stackconf.deadline import hook_seconds, map_with_deadline
from stackconf.errors import PluginLoadError, UnknownName
from stackconf.redact import described
from stackconf.registry.hooks import Plugin, is_users_interrupt, plugin_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from stackconf.fields import ClassPlan
    from stackconf.registry.metadata import Advertised
    from stackconf.types import ProviderType


Source = TypeVar("Source")
Loaded = TypeVar("Loaded")
Named: TypeAlias = "Advertised | Plugin"


def load(entry: Advertised) -> Plugin:
    """Import what an entry point names and check its declarations."""
    try:
        implementation = _import_file(entry.target) if _is_file(entry) else _import_target(entry.target)
    except BaseException as error:
        if is_users_interrupt(error):
            raise
        raise _refused(entry, f"cannot be imported: {_described(error)}") from error
    return plugin_from(entry.target, implementation, distribution=entry.distribution, version=entry.version)


def in_time(function: Callable[[Source], Loaded], source: Source, owner: Named) -> Loaded | PluginLoadError:
    """`function(source)`, which may import, or the `PluginLoadError` that came of it: its own, or
    that it did not come back in time, which is said of `owner`.
    """

    def guarded(_: None) -> Loaded | PluginLoadError:
        try:
            return function(source)
        except PluginLoadError as error:
            return error

    def late(_: None) -> Loaded | PluginLoadError:
        problem = f"its import did not come back within {hook_seconds():g} s"
        return PluginLoadError(owner.name, problem, distribution=owner.distribution, version=owner.version)

    return map_with_deadline(guarded, [None], seconds=hook_seconds(), late=late)[0]


def config_class_of(kind: ProviderType, plugin: Plugin) -> tuple[type[BaseModel], ClassPlan]:
    """The config class of a type, imported if it is named by a string, and its plan."""
    from pydantic import BaseModel

    from stackconf.fields import plan_with

    found: object = kind.config_class
    if isinstance(found, str):
        try:
            found = _import_target(found)
        except BaseException as error:
            if is_users_interrupt(error):
                raise
            problem = f"its config class `{kind.config_class}` cannot be imported: {_described(error)}"
            raise _of_plugin(plugin, problem) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise _of_plugin(plugin, f"the config class of `{kind.key}` is not a pydantic model: {found!r}")
    try:
        if not found.__pydantic_complete__:
            found.model_rebuild()
        return found, plan_with(found, kind.user_fields, kind.update)
    except UnknownName as error:
        raise _of_plugin(plugin, f"the user fields of `{kind.key}`: {error}") from error
    except Exception as error:
        raise _of_plugin(plugin, f"its config class `{found.__name__}` {described(error)}") from error


def _is_file(entry: Advertised) -> bool:
    return entry.target.endswith(".py")


def _import_target(target: str) -> object:
    module_name, _, attribute = target.partition(":")
    found: object = importlib.import_module(module_name)
    for part in attribute.split(".") if attribute else ():
        found = getattr(found, part)
    return found


def _import_file(path: str) -> object:
    file = Path(path).resolve()
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    name = f"stackconf_plugin_file_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic resolves annotations through sys.modules
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _refused(entry: Advertised, problem: str) -> PluginLoadError:
    return PluginLoadError(entry.name, problem, distribution=entry.distribution, version=entry.version)


def _of_plugin(plugin: Plugin, problem: str) -> PluginLoadError:
    return PluginLoadError(plugin.name, problem, distribution=plugin.distribution, version=plugin.version)


def _described(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        place = f"{Path(error.filename).name}:{error.lineno}: " if error.filename else ""
        return f"{type(error).__name__}: {place}{error.msg}"
    return described(error).removeprefix("raised ")
