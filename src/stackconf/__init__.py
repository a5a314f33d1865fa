"""stackconf: the configuration layer for stacks of AI providers.

The public names are loaded on first use, so that importing the package costs almost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf._version import __version__

if TYPE_CHECKING:
    from stackconf.apply import Progress, Report
    from stackconf.client.async_client import AsyncClient
    from stackconf.client.client import Client
    from stackconf.errors import (
        AccessDenied,
        ApplyBusy,
        ApplyError,
        Conflict,
        HookError,
        InvalidConfig,
        PluginLoadError,
        RevisionLost,
        Sealed,
        SecretError,
        StackconfError,
        StalePlan,
        StoreDamaged,
        StoreError,
        UnknownName,
        Unreachable,
    )
    from stackconf.fields import user_field
    from stackconf.hardware.facts import (
        Accelerator,
        Cpu,
        Figure,
        Hardware,
        Host,
        Limit,
        Memory,
        MigInstance,
        Nominal,
        NumaNode,
        Peer,
        Problem,
        Provenance,
        Throughput,
        Visibility,
    )
    from stackconf.hardware.simulation import simulate
    from stackconf.hardware.sizing import compute_threads, memory_share, size_text
    from stackconf.holder import Holder, Swap
    from stackconf.hookspecs import API_VERSION, hookimpl
    from stackconf.manager import Manager
    from stackconf.plan import Plan
    from stackconf.registry.registry import Registry
    from stackconf.resolve.toplevel import file_issues
    from stackconf.runtimes import Runtime
    from stackconf.stack import Stack
    from stackconf.stackfile.model import ProviderEntry, StackFile
    from stackconf.types import Applied, Because, Issue, Origin, Position, Provider, ProviderType, because

_HOME = {
    "API_VERSION": "hookspecs",
    "AccessDenied": "errors",
    "Accelerator": "hardware.facts",
    "Applied": "types",
    "ApplyBusy": "errors",
    "ApplyError": "errors",
    "AsyncClient": "client.async_client",
    "Because": "types",
    "Client": "client.client",
    "Conflict": "errors",
    "Cpu": "hardware.facts",
    "Figure": "hardware.facts",
    "Hardware": "hardware.facts",
    "Holder": "holder",
    "HookError": "errors",
    "Host": "hardware.facts",
    "InvalidConfig": "errors",
    "Issue": "types",
    "Limit": "hardware.facts",
    "Manager": "manager",
    "Memory": "hardware.facts",
    "MigInstance": "hardware.facts",
    "Nominal": "hardware.facts",
    "NumaNode": "hardware.facts",
    "Origin": "types",
    "Peer": "hardware.facts",
    "Plan": "plan",
    "PluginLoadError": "errors",
    "Position": "types",
    "Problem": "hardware.facts",
    "Progress": "apply",
    "Provenance": "hardware.facts",
    "Provider": "types",
    "ProviderEntry": "stackfile.model",
    "ProviderType": "types",
    "Registry": "registry.registry",
    "Report": "apply",
    "RevisionLost": "errors",
    "Runtime": "runtimes",
    "Sealed": "errors",
    "SecretError": "errors",
    "Stack": "stack",
    "StackFile": "stackfile.model",
    "StackconfError": "errors",
    "StalePlan": "errors",
    "StoreDamaged": "errors",
    "StoreError": "errors",
    "Swap": "holder",
    "Throughput": "hardware.facts",
    "UnknownName": "errors",
    "Unreachable": "errors",
    "Visibility": "hardware.facts",
    "because": "types",
    "compute_threads": "hardware.sizing",
    "file_issues": "resolve.toplevel",
    "hookimpl": "hookspecs",
    "memory_share": "hardware.sizing",
    "simulate": "hardware.simulation",
    "size_text": "hardware.sizing",
    "user_field": "fields",
}

__all__ = [
    "API_VERSION",
    "Accelerator",
    "AccessDenied",
    "Applied",
    "ApplyBusy",
    "ApplyError",
    "AsyncClient",
    "Because",
    "Client",
    "Conflict",
    "Cpu",
    "Figure",
    "Hardware",
    "Holder",
    "HookError",
    "Host",
    "InvalidConfig",
    "Issue",
    "Limit",
    "Manager",
    "Memory",
    "MigInstance",
    "Nominal",
    "NumaNode",
    "Origin",
    "Peer",
    "Plan",
    "PluginLoadError",
    "Position",
    "Problem",
    "Progress",
    "Provenance",
    "Provider",
    "ProviderEntry",
    "ProviderType",
    "Registry",
    "Report",
    "RevisionLost",
    "Runtime",
    "Sealed",
    "SecretError",
    "Stack",
    "StackFile",
    "StackconfError",
    "StalePlan",
    "StoreDamaged",
    "StoreError",
    "Swap",
    "Throughput",
    "UnknownName",
    "Unreachable",
    "Visibility",
    "__version__",
    "because",
    "compute_threads",
    "file_issues",
    "hookimpl",
    "memory_share",
    "simulate",
    "size_text",
    "user_field",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        message = f"module `stackconf` has no attribute `{name}`"
        raise AttributeError(message)
    from importlib import import_module

    value = getattr(import_module(f"stackconf.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
