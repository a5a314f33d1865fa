"""`stackconf providers`: those of the stack, and the fields of a type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from stackconf.cli.machines import one_machine
from stackconf.cli.naming import ProviderName
from stackconf.cli.opening import open_hosted, opened, server_here, stack_here, warn_of_plugins
from stackconf.cli.options import Group, Settings, pass_settings, stack_options
from stackconf.cli.output import (
    COSTS,
    NOTHING,
    Screen,
    emit_json,
    err,
    out,
    plural,
    show_issues,
    value_text,
)
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.described import DescribedField, DescribedType, ListedProvider
    from stackconf.stackfile.model import ProviderEntry


@click.group("providers", cls=Group)
@stack_options
def providers() -> None:
    """The providers of the stack, and what can be set on each."""


@providers.command(
    "list", takes_hardware=True, short_help="List the stack's providers, or the installed types."
)
@click.option("--types", is_flag=True, help="List the installed provider types instead of a stack's.")
@stack_options
@pass_settings
def list_(settings: Settings, *, types: bool) -> int:
    """List the stack's providers and their state; without a stack, the installed types.

    State is valid, invalid, disabled (in the stack file) or not managed (no plugin knows the type,
    and --skip-unknown allows that).
    """
    there = server_here(settings) is not None
    if types or (not there and stack_here(settings) is None):
        if not types:
            err(settings).note("hint", "no stack file here, so these are the installed types")
        return _list_types(settings)
    on = one_machine(settings)
    with opened(settings, on=on) as stack, waiting(settings, "resolving"):
        rows = stack.providers()
        issues = stack.issues
    if settings.json:
        from stackconf.shapes.issues import issues_data
        from stackconf.shapes.types import listed_provider_data

        machine = {"hardware": on.data()} if on else {}
        found = [listed_provider_data(row) for row in rows]
        emit_json({"providers": found, "issues": issues_data(issues), **machine})
    else:
        if on:
            out(settings).line(f"hardware: {on}", "dim")
        head = ("provider", "type", "state", "last apply", "plugin")
        table = [(row.provider, row.provider_type, *_cells(row)) for row in rows]
        out(settings).table(head, table)
    return int(show_issues(settings, issues))


@providers.command("show", short_help="Show the fields of a type.")
@click.argument("name", metavar="PROVIDER_OR_TYPE", type=ProviderName())
@stack_options
@pass_settings
def show(settings: Settings, name: str) -> None:
    """Show the fields of a provider's type: what may be set, defaults, what a change costs.

    PROVIDER_OR_TYPE is a provider of the stack (`inference/ollama`, `ollama`) or an installed type
    (`inference/remote::ollama`, `remote::ollama`). With -v also the fields of nested mappings.
    """
    kind = _type_there(settings, name) if server_here(settings) else _type_here(settings, name)
    if settings.json:
        from stackconf.shapes.types import type_data

        emit_json(type_data(kind))
    else:
        _show_type(out(settings), kind, nested=settings.verbose)


def _type_there(settings: Settings, name: str) -> DescribedType:
    with opened(settings) as stack:
        return stack.provider_type(name)


def _type_here(settings: Settings, name: str) -> DescribedType:
    """The type that is meant; no stack is opened for it, and there may be none."""
    from stackconf.described import described, type_key

    registry = open_hosted(settings)
    try:
        return described(registry, type_key(registry, name, _entries(settings)))
    finally:
        warn_of_plugins(settings, registry)


def _list_types(settings: Settings) -> int:
    if server_here(settings):
        with opened(settings) as stack:
            found = stack.provider_types()
    else:
        from stackconf.described import listed_types

        registry = open_hosted(settings)
        found = listed_types(registry)
        warn_of_plugins(settings, registry)
    if settings.json:
        from stackconf.shapes.types import listed_type_data

        emit_json({"types": [listed_type_data(each) for each in found]})
    else:
        rows = [(each.type, each.state, each.plugin) for each in found]
        out(settings).table(("type", "state", "plugin"), rows)
    return 0


def _cells(row: ListedProvider) -> tuple[str, str, str]:
    return (row.state, (row.last_apply or NOTHING).replace("_", " "), row.plugin or NOTHING)


def _entries(settings: Settings) -> Iterator[ProviderEntry]:
    """The stack's providers, if there is a stack; it is read when a name is not that of a type."""
    path = stack_here(settings)
    if path is None:
        return
    from stackconf.stackfile.model import load

    yield from load(path).providers


def _show_type(screen: Screen, kind: DescribedType, *, nested: bool) -> None:
    screen.line(kind.type, "bold")
    for label, text in (
        ("description", kind.description),
        ("plugin", kind.plugin),
        ("config class", kind.config_class),
        ("applied after", ", ".join(kind.api_dependencies)),
    ):
        if text:
            screen.paragraph(text, indent=f"  {label:15}", hang=" " * 17)
    for user, title in ((True, "Fields that users may set"), (False, "Other fields")):
        chosen = [field for field in kind.fields if field.user_field == user]
        hidden = 0 if nested or user else sum("." in field.path for field in chosen)
        chosen = [field for field in chosen if not hidden or "." not in field.path]
        if chosen:
            screen.line()
            screen.line(title, "bold")
            head = ("field", "type", "default", "a change costs", "description")
            screen.table(head, [_field_row(field) for field in chosen], indent="  ")
        if hidden:
            screen.line(f"  and {plural(hidden, 'nested field')}; -v shows them", "dim")


def _field_row(field: DescribedField) -> tuple[str, ...]:
    secret = "Secret. " if field.secret else ""
    also = f" (also {', '.join(field.aliases)})" if field.aliases else ""
    default = "required" if field.required else value_text(field.default)
    return (
        f"{field.path}{also}",
        field.type,
        default,
        COSTS[field.update],
        f"{secret}{field.description}",
    )
