"""From a target in metadata to a live plugin object. Whatever goes wrong is a `PluginLoadError`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stackconf.errors import PluginLoadError
from stackconf.registry.hooks import Plugin, plugin_from

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.registry.metadata import Advertised
    from stackconf.types import ProviderType


def load(entry: Advertised) -> Plugin:
    """Import what an entry point names and check its declarations."""
    try:
        implementation = _import_file(entry.target) if _is_file(entry) else _import_target(entry.target)
    except (Exception, SystemExit) as error:
        raise _refused(entry, f"cannot be imported: {_described(error)}") from error
    return plugin_from(entry.target, implementation, distribution=entry.distribution, version=entry.version)


def config_class_of(kind: ProviderType, plugin: Plugin) -> type[BaseModel]:
    """The config class of a type, imported if it is named by a string."""
    from pydantic import BaseModel

    found: object = kind.config_class
    if isinstance(found, str):
        try:
            found = _import_target(found)
        except (Exception, SystemExit) as error:
            problem = f"its config class `{kind.config_class}` cannot be imported: {_described(error)}"
            raise _of_plugin(plugin, problem) from error
    if not (isinstance(found, type) and issubclass(found, BaseModel)):
        raise _of_plugin(plugin, f"the config class of `{kind.key}` is not a pydantic model: {found!r}")
    return found


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
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
