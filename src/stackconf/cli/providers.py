"""`stackconf providers`: those of the stack, and the fields of a type."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.machines import one_machine
from stackconf.cli.naming import ProviderName
from stackconf.cli.opening import open_hosted, opened, stack_here, warn_of_plugins
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
from stackconf.errors import UnknownName

if TYPE_CHECKING:
    from stackconf.described import DescribedField, DescribedType, ListedProvider
    from stackconf.registry.registry import Registry


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
    if types or stack_here(settings) is None:
        if not types:
            err(settings).note("hint", "no stack file here, so these are the installed types")
        return _list_types(settings)
    on = one_machine(settings)
    from stackconf.described import listed_providers

    with opened(settings, on=on) as stack, waiting(settings, "resolving"):
        rows = listed_providers(stack.resolution.providers, stack.file, stack.store.status())
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
    from stackconf.described import described

    registry = open_hosted(settings)
    try:
        kind = described(registry, _type_key(name, settings, registry))
    finally:
        warn_of_plugins(settings, registry)
    if settings.json:
        from stackconf.shapes.types import type_data

        emit_json(type_data(kind))
    else:
        _show_type(out(settings), kind, nested=settings.verbose)


def _list_types(settings: Settings) -> int:
    from stackconf.described import listed_types

    registry = open_hosted(settings)
    found = listed_types(registry)
    if settings.json:
        from stackconf.shapes.types import listed_type_data

        emit_json({"types": [listed_type_data(each) for each in found]})
    else:
        rows = [(each.type, each.state, each.plugin) for each in found]
        out(settings).table(("type", "state", "plugin"), rows)
    warn_of_plugins(settings, registry)
    return 0


def _cells(row: ListedProvider) -> tuple[str, str, str]:
    return (row.state, (row.last_apply or NOTHING).replace("_", " "), row.plugin or NOTHING)


def _type_key(name: str, settings: Settings, registry: Registry) -> str:
    """`api/provider_type` of what a person named. Raises `UnknownName`."""
    keys = registry.type_keys()
    if name in keys:
        return name
    found = [key for key in keys if key.split("/", 1)[1] == name] or _providers_called(name, settings)
    if len(set(found)) == 1:
        return found[0]
    if found:
        raise UnknownName(f"`{name}` is ambiguous; say one of {', '.join(sorted(set(found)))}")
    from stackconf.suggest import did_you_mean

    if "/" in name and "::" in name:
        return name
    hint = did_you_mean(name, [*keys, *(key.split("/", 1)[1] for key in keys)])
    raise UnknownName(f"no provider or type `{name}`; {hint or '`stackconf providers list` shows them'}")


def _providers_called(name: str, settings: Settings) -> list[str]:
    """The type keys of the stack's providers of that key or id, if there is a stack."""
    path = stack_here(settings)
    if path is None:
        return []
    from stackconf.stackfile.model import load

    return [
        f"{entry.api}/{entry.provider_type}"
        for entry in load(path).providers
        if name in {entry.key, entry.provider_id}
    ]


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
