"""Arguments that name something of the stack, with completion in the shell.

Completing never writes to standard error, which a shell would show in the middle of the line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from stackconf.cli.options import Command, Settings

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class ProviderName(click.ParamType):  # type: ignore[type-arg] # before click 8.2 it takes none
    """A provider of the stack. Completing it reads the stack file and imports no plugin."""

    name = "provider"

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The stack's providers that begin so."""
        return _beginning(incomplete, _quietly(_providers, ctx))


class ConfigurationName(click.ParamType):  # type: ignore[type-arg] # before click 8.2 it takes none
    """A registered configuration. Completing it reads the store and imports no plugin."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """The registered configurations that begin so."""
        return _beginning(incomplete, _quietly(_configurations, ctx))


def _beginning(incomplete: str, names: list[str]) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _quietly(names: Any, ctx: click.Context) -> list[str]:
    try:
        found: list[str] = names(ctx.find_object(Settings) or Settings())
    except Exception:  # noqa: BLE001 (a shell that completes wants names or nothing)
        return []
    return found


def _providers(settings: Settings) -> list[str]:
    from stackconf.cli.opening import opened, server_here, stack_here

    if server_here(settings):
        with opened(settings) as stack:
            return [each.provider for each in stack.providers() if each.state != "disabled"]
    from stackconf.stackfile.model import load

    path = stack_here(settings)
    return [] if path is None else [entry.key for entry in load(path).providers]


def _configurations(settings: Settings) -> list[str]:
    from stackconf.cli.opening import opened, server_here, stack_here, store_here

    if server_here(settings):
        with opened(settings) as there:
            return [each.name for each in there.configurations.list()]
    from stackconf.stack import Stack

    path = stack_here(settings)
    if path is None:
        return []
    with Stack.open(path, store=store_here(settings)) as stack:
        return [each.name for each in stack.configurations.list()]


_BACK = re.compile(r"-\d{1,9}")


class RevisionCommand(Command):
    """A command that takes revisions: `-1` is the one before the head, and no option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, with `-1` written out as `head-1`."""
        return super().parse_args(ctx, [f"head{arg}" if _BACK.fullmatch(arg) else arg for arg in args])
