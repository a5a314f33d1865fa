"""`stackconf providers`: those of the stack, and the fields of a type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

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
from stackconf.cli.typenames import type_text
from stackconf.cli.waiting import waiting
from stackconf.errors import PluginLoadError, UnknownName

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan, FieldPlan
    from stackconf.registry.registry import Owned, Registry
    from stackconf.resolve.resolve import Resolved
    from stackconf.stack import Stack

_DEPTH = 6


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
    with opened(settings, on=on) as stack, waiting(settings, "resolving"):
        rows = list(_rows(stack))
        issues = stack.issues
    if settings.json:
        from stackconf.shapes.issues import issues_data

        machine = {"hardware": on.data()} if on else {}
        emit_json({"providers": rows, "issues": issues_data(issues), **machine})
    else:
        if on:
            out(settings).line(f"hardware: {on}", "dim")
        head = ("provider", "type", "state", "last apply", "plugin")
        table = [(row["provider"], row["provider_type"], *_cells(row)) for row in rows]
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
    registry = open_hosted(settings)
    try:
        owned = _owner(registry, _type_key(name, settings, registry))
        fields = list(_fields(owned))
    finally:
        warn_of_plugins(settings, registry)
    if settings.json:
        emit_json({**_type_data(owned), "fields": fields})
    else:
        _show_type(out(settings), owned, fields, nested=settings.verbose)


def _list_types(settings: Settings) -> int:
    registry = open_hosted(settings)
    installed = [] if registry.runtime_name else registry.advertised()
    plugins = {entry.name: entry for entry in installed if entry.group == "stackconf.providers"}
    rows = []
    for key in sorted({*plugins, *registry.type_keys()}):
        entry = plugins.get(key)
        plugin = (
            f"{entry.distribution} {entry.version}".strip()
            if entry
            else _owner(registry, key).hooks.owner.label
        )
        rows.append((key, "enabled" if entry is None or entry.enabled else "disabled", plugin))
    if settings.json:
        emit_json({"types": [dict(zip(("type", "state", "plugin"), row, strict=True)) for row in rows]})
    else:
        out(settings).table(("type", "state", "plugin"), rows)
    warn_of_plugins(settings, registry)
    return 0


def _rows(stack: Stack) -> Iterator[dict[str, Any]]:
    status = stack.store.status()
    for key, resolved in stack.resolution.providers.items():
        last = status.get(key)
        yield {
            "provider": key,
            "provider_type": resolved.provider.provider_type,
            "state": _state(resolved),
            "last_apply": last.state if last else None,
            "plugin": resolved.owned.hooks.owner.label if resolved.owned else None,
        }
    for entry in stack.file.disabled:
        yield {
            "provider": entry.key,
            "provider_type": entry.provider_type,
            "state": "disabled",
            "last_apply": None,
            "plugin": None,
        }


def _state(resolved: Resolved) -> str:
    if resolved.valid:
        return "valid"
    unknown = [issue for issue in resolved.issues if issue.code == "unknown-type"]
    if unknown and all(issue.level != "error" for issue in resolved.issues):
        return "not managed"
    return "invalid"


def _cells(row: dict[str, Any]) -> tuple[str, str, str]:
    return (row["state"], (row["last_apply"] or NOTHING).replace("_", " "), row["plugin"] or NOTHING)


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


def _owner(registry: Registry, key: str) -> Owned:
    from stackconf.registry.registry import Owned

    found = registry.find(*key.split("/", 1))
    if isinstance(found, Owned):
        return found
    if isinstance(found, PluginLoadError):
        raise found
    raise UnknownName(f"{found.message}; {found.hint}" if found.hint else found.message)


def _fields(owned: Owned) -> Iterable[dict[str, Any]]:
    return _of_class(owned.plan, "", inherited=False, above="restart", depth=0)


def _of_class(
    plan: ClassPlan, prefix: str, *, inherited: bool, above: str, depth: int
) -> Iterator[dict[str, Any]]:
    for name, each in plan.fields.items():
        info = plan.config_class.model_fields[name]
        user = inherited if each.user is None else each.user
        update = each.update or above
        path = f"{prefix}{name}"
        yield {
            "path": path,
            "type": type_text(info.annotation, info.metadata),
            "required": each.required,
            "default": None if each.required else _default(plan, name, each),
            "user_field": user,
            "update": update,
            "secret": each.secret,
            "description": " ".join(each.description.split()),
            "aliases": plan.aliases_of(name)[1:],
        }
        if each.kind == "model" and depth < _DEPTH:
            for model in each.models:
                tag = _tag(each, model)
                yield from _of_class(model, f"{path}{tag}.", inherited=user, above=update, depth=depth + 1)


def _tag(field: FieldPlan, model: ClassPlan) -> str:
    """What tells this member of a union from the others."""
    if len(field.models) == 1:
        return ""
    values = [str(value) for name in sorted(field.tags) for value in model.tag_values.get(name, ())]
    return f"[{'|'.join(sorted(values)) or model.config_class.__name__}]"


def _default(plan: ClassPlan, name: str, field: FieldPlan) -> Any:
    from pydantic_core import to_jsonable_python

    from stackconf.redact import REDACTED, redact_free

    info = plan.config_class.model_fields[name]
    if info.default_factory_takes_validated_data:
        return None
    default = info.get_default(call_default_factory=True)
    if field.secret and default not in (None, ""):
        return REDACTED
    return redact_free(to_jsonable_python(default, fallback=str, inf_nan_mode="strings"), name)


def _type_data(owned: Owned) -> dict[str, Any]:
    kind = owned.kind
    return {
        "type": kind.key,
        "description": kind.description,
        "plugin": owned.hooks.owner.label,
        "config_class": f"{owned.config_class.__module__}.{owned.config_class.__qualname__}",
        "api_dependencies": list(kind.api_dependencies),
    }


def _show_type(screen: Screen, owned: Owned, fields: Sequence[dict[str, Any]], *, nested: bool) -> None:
    data = _type_data(owned)
    screen.line(str(data["type"]), "bold")
    for label, text in (
        ("description", data["description"]),
        ("plugin", data["plugin"]),
        ("config class", data["config_class"]),
        ("applied after", ", ".join(data["api_dependencies"])),
    ):
        if text:
            screen.paragraph(str(text), indent=f"  {label:15}", hang=" " * 17)
    for user, title in ((True, "Fields that users may set"), (False, "Other fields")):
        chosen = [field for field in fields if field["user_field"] == user]
        hidden = 0 if nested or user else sum("." in field["path"] for field in chosen)
        chosen = [field for field in chosen if not hidden or "." not in field["path"]]
        if chosen:
            screen.line()
            screen.line(title, "bold")
            head = ("field", "type", "default", "a change costs", "description")
            screen.table(head, [_field_row(field) for field in chosen], indent="  ")
        if hidden:
            screen.line(f"  and {plural(hidden, 'nested field')}; -v shows them", "dim")


def _field_row(field: dict[str, Any]) -> tuple[str, ...]:
    secret = "Secret. " if field["secret"] else ""
    also = f" (also {', '.join(field['aliases'])})" if field["aliases"] else ""
    default = "required" if field["required"] else value_text(field["default"])
    return (
        f"{field['path']}{also}",
        field["type"],
        default,
        COSTS[field["update"]],
        f"{secret}{field['description']}",
    )
