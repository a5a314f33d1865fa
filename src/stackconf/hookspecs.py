"""The four hooks that a plugin implements, each with a complete example.

A *provider plugin* is a module, or an instance of a plain class, that declares `provides`, a
sequence of `ProviderType`. Its hooks are called for the providers of those types and for no
others. A plugin without `provides` is *cross-cutting* (hardware, site policy): it sees every
provider.

Rules that hold for all four:

* Arguments are passed by name. Take those you need and leave out the rest; arguments are only
  ever added, so a plugin written today goes on working.
* A hook that raises, hangs or returns the wrong thing is reported with its plugin, distribution
  and version, and the other plugins go on.
* Do not import heavy libraries at the top of a plugin module: it is imported whenever a stack
  names one of its types.
* `stackconf_api = 1` in the plugin says which contract it was written for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.hardware.facts import Fact, Hardware
    from stackconf.types import Applied, Issue, Provider

PROJECT = "stackconf"
API_VERSION = 1
"""The number of the contract below. A plugin says `stackconf_api = 1`."""

SUPPORTED_API_VERSIONS = frozenset({1})

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def discover_hardware() -> Iterable[Fact]:
    """Report facts about this machine: what there is, never what to do with it.

    Returns `Host`, `Cpu`, `Memory`, `Accelerator` and `Problem` objects. What could not be found
    out is `None` in its place and a `Problem` that says why; unknown is never zero. Read-only.
    Each plugin runs in a process of its own with a deadline, so a hanging driver costs its facts
    and nothing else.

    Example, a plugin for a machine whose accelerators are known from a site inventory:

        from stackconf import Accelerator, Problem, hookimpl

        @hookimpl
        def discover_hardware():
            try:
                with open("/etc/site/cards") as file:
                    names = file.read().split()
            except OSError as error:
                return [Problem("site", "accelerators", "error", str(error))]
            return [Accelerator(vendor="acme", name=name, uuid=f"ACME-{number}")
                    for number, name in enumerate(names)]
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def default_config(
    provider: Provider, hardware: Hardware, others: Mapping[Provider, BaseModel]
) -> Mapping[str, object] | None:
    """Derive this provider's settings from the hardware, each with its reason.

    Returns a mapping of field names to values, nested where the config class is nested; a value
    may be `because(value, reason)`. Give only the fields that follow from the hardware. Pure:
    the same arguments give the same answer. The stack file and users' configurations override it.

    `others` are the effective configurations of the stack's providers of the apis that the provider's
    type depends on (`ProviderType.api_dependencies`), for settings that follow another provider's.
    An implementation that takes it is called after these are resolved, and again when one of them
    changes. One without a valid configuration is not among them.

    Example:

        from stackconf import because, hookimpl

        @hookimpl
        def default_config(provider, hardware):
            cores = hardware.cpu.usable_physical_cores
            if cores is None:
                return None
            return {"threads": because(cores, f"{cores} usable physical cores; SMT siblings "
                                              "share one matrix unit")}
    """
    raise NotImplementedError


@hookspec
def validate_user_config(
    provider: Provider,
    user_config: Mapping[str, object],
    config: BaseModel,
    hardware: Hardware,
    others: Mapping[Provider, BaseModel],
) -> Iterable[Issue]:
    """Say what is wrong with a configuration beyond what its class can express.

    `user_config` holds the user fields that registered configurations set (perhaps none),
    `config` is the whole effective configuration, an instance of the config class. Returns
    `Issue` objects with `path` and `hint`; an `Issue` of level `"error"` refuses the
    configuration. Never raises for a user's mistake.

    `others` are the effective configurations of the other providers of the stack, for providers that
    must agree with each other. An implementation that takes it is called after all of them are
    resolved, and again when any of them changes, which costs a little: leave it out where it is not
    needed. A provider that has no valid configuration is not among them.

    Example:

        from stackconf import Issue, hookimpl

        @hookimpl
        def validate_user_config(provider, user_config, config, hardware):
            total = hardware.memory.usable_bytes
            if total is not None and config.cache_bytes > total:
                yield Issue(
                    f"{config.cache_bytes} bytes of cache do not fit into {total} bytes of memory",
                    path="cache_bytes",
                    hint=f"use at most {total // 2}",
                )
    """
    raise NotImplementedError


@hookspec(firstresult=True)
def apply_config(
    provider: Provider,
    config: BaseModel | None,
    previous: BaseModel | None,
) -> Applied | Awaitable[Applied | None] | None:
    r"""Make the running provider use `config`. May be `async def`.

    `previous is None`: the provider joins the stack. `config is None`: it leaves. Raise when the
    provider rejects the configuration; everything applied before is then undone. Return
    `Applied(pending="why")` when it cannot be reached, and `None` when there was nothing to do.
    `undo` takes the change back, `check` returns what is wrong with the provider now, or `None`, and
    `check_undo` the same after `undo`. After an apply that was killed, or an undo that failed, it is
    told to join what may well run.

    Example, a service that reads a file:

        from pathlib import Path
        from stackconf import Applied, hookimpl

        @hookimpl
        def apply_config(provider, config, previous):
            if config is None:
                return Applied("left running; nothing to take down", undo=lambda: None)
            path = Path(config.settings_file)
            before = path.read_text() if path.exists() else None
            path.write_text(f"threads = {config.threads}\n")

            def undo():
                if before is None:
                    path.unlink(missing_ok=True)
                else:
                    path.write_text(before)

            return Applied(f"wrote {path}", undo=undo)
    """
    raise NotImplementedError
