"""Providers and their types as people look at them: what can be set, what a change costs, who serves it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from attrs import field, frozen

from stackconf.errors import PluginLoadError, UnknownName
from stackconf.packing import spelled
from stackconf.redact import REDACTED, redact_free
from stackconf.suggest import did_you_mean
from stackconf.typenames import type_text

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan, FieldPlan
    from stackconf.registry.registry import Owned, Registry
    from stackconf.resolve.resolve import Resolved
    from stackconf.stackfile.model import ProviderEntry, StackFile
    from stackconf.store.base import Status
    from stackconf.types import Accelerated, UpdateClass

ProviderState: TypeAlias = Literal["valid", "invalid", "not managed", "disabled"]
"""`not managed`: no plugin knows its type, and the stack allows that. `disabled`: in the stack file."""

TypeState: TypeAlias = Literal["enabled", "disabled"]

_DEPTH = 6


@frozen
class ListedProvider:
    """One provider of a stack. `last_apply` is the state that its last attempt left it in, `plugin` who
    serves its type.
    """

    provider: str
    provider_type: str
    state: ProviderState
    last_apply: str | None = None
    plugin: str | None = None


@frozen
class ListedType:
    """One installed provider type, `api/provider_type`, and the plugin that serves it."""

    type: str
    state: TypeState
    plugin: str


@frozen
class DescribedField:
    """One field of a config class. `path` is dotted; a member of a union stands in brackets.

    `type` is what a value may be, in words. `default` is `None` where it is `required`, and redacted.
    """

    path: str
    type: str
    required: bool
    default: object
    user_field: bool
    update: UpdateClass
    secret: bool
    description: str = ""
    aliases: tuple[str, ...] = ()


@frozen
class DescribedType:
    """A provider type with its fields, and as a JSON schema in which user fields are marked
    (`user_field: true`).

    `schema_problem` says why there is no schema.
    """

    type: str
    description: str
    plugin: str
    config_class: str
    api_dependencies: tuple[str, ...] = ()
    accelerators: Accelerated | Literal["depends"] = False
    """`depends`: on a provider's settings."""
    fields: tuple[DescribedField, ...] = ()
    json_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    schema_problem: str = ""


def listed_providers(
    resolved: Mapping[str, Resolved], file: StackFile, last: Mapping[str, Status]
) -> tuple[ListedProvider, ...]:
    """The providers of a stack file as they were resolved, then those that it disables."""
    on = [
        ListedProvider(
            key,
            each.provider.provider_type,
            _state(each),
            last[key].state if key in last else None,
            each.owned.hooks.owner.label if each.owned else None,
        )
        for key, each in resolved.items()
    ]
    off = [ListedProvider(entry.key, entry.provider_type, "disabled") for entry in file.disabled]
    return (*on, *off)


def listed_types(registry: Registry) -> tuple[ListedType, ...]:
    """The installed types, or those of the runtime, by name. Raises `PluginLoadError` for a file that
    cannot be loaded.
    """
    installed = [] if registry.runtime_name else registry.advertised()  # a runtime brings its own
    entries = {entry.name: entry for entry in installed if entry.group == "stackconf.providers"}
    found = []
    for key in sorted({*entries, *registry.type_keys()}):
        entry = entries.get(key)
        label = f"{entry.distribution} {entry.version}".strip() if entry else _label(registry, key)
        found.append(ListedType(key, "enabled" if entry is None or entry.enabled else "disabled", label))
    return tuple(found)


def described(registry: Registry, key: str) -> DescribedType:
    """The type `api/provider_type`. Raises `UnknownName`, and `PluginLoadError` when it cannot be loaded."""
    owned = owner_of(registry, key)
    kind = owned.kind
    schema, problem = _schema(owned.plan)
    return DescribedType(
        kind.key,
        kind.description,
        owned.hooks.owner.label,
        f"{owned.config_class.__module__}.{owned.config_class.__qualname__}",
        tuple(kind.api_dependencies),
        "depends" if callable(kind.accelerators) else kind.accelerators,
        tuple(_of_class(owned.plan, "", inherited=False, above="restart", depth=0)),
        schema,
        problem,
    )


def owner_of(registry: Registry, key: str) -> Owned:
    """The owner of a type. Raises as `described` does."""
    from stackconf.registry.registry import Owned

    api, slash, provider_type = key.partition("/")
    if not slash:
        raise UnknownName(f"no type `{key}`; a type is `api/provider_type`")
    found = registry.find(api, provider_type)
    if isinstance(found, Owned):
        return found
    if isinstance(found, PluginLoadError):
        raise found
    raise UnknownName(f"{found.message}; {found.hint}" if found.hint else found.message)


def _label(registry: Registry, key: str) -> str:
    return owner_of(registry, key).hooks.owner.label


def _state(resolved: Resolved) -> ProviderState:
    if resolved.valid:
        return "valid"
    unknown = [issue for issue in resolved.issues if issue.code == "unknown-type"]
    if unknown and all(issue.level != "error" for issue in resolved.issues):
        return "not managed"
    return "invalid"


def type_key(registry: Registry, name: str, entries: Iterable[ProviderEntry] = ()) -> str:
    """`api/provider_type` of what a person named: a type, or one of the `entries` of a stack file.
    Raises `UnknownName`.
    """
    keys = registry.type_keys()
    if name in keys:
        return name
    found = [key for key in keys if key.split("/", 1)[1] == name] or [
        f"{entry.api}/{entry.provider_type}" for entry in entries if name in {entry.key, entry.provider_id}
    ]
    if len(set(found)) == 1:
        return found[0]
    if found:
        raise UnknownName(f"`{name}` is ambiguous; say one of {', '.join(sorted(set(found)))}")
    if "/" in name and "::" in name:
        return name
    hint = did_you_mean(name, [*keys, *(key.split("/", 1)[1] for key in keys)])
    raise UnknownName(f"no provider or type `{name}`; {hint or '`stackconf providers list` shows them'}")


# Fields


def _of_class(
    plan: ClassPlan, prefix: str, *, inherited: bool, above: UpdateClass, depth: int
) -> Iterator[DescribedField]:
    for name, each in plan.fields.items():
        info = plan.config_class.model_fields[name]
        user = inherited if each.user is None else each.user
        update = each.update or above
        path = f"{prefix}{name}"
        yield DescribedField(
            path,
            type_text(info.annotation, info.metadata),
            each.required,
            None if each.required else _default(plan, name, each),
            user,
            update,
            each.secret,
            " ".join(each.description.split()),
            tuple(plan.aliases_of(name)[1:]),
        )
        if each.kind == "model" and depth < _DEPTH:
            for model in each.models:
                inside = f"{path}{_tag(each, model)}."
                yield from _of_class(model, inside, inherited=user, above=update, depth=depth + 1)


def _tag(field: FieldPlan, model: ClassPlan) -> str:
    """What tells this member of a union from the others."""
    if len(field.models) == 1:
        return ""
    values = [str(value) for name in sorted(field.tags) for value in model.tag_values.get(name, ())]
    return f"[{'|'.join(sorted(values)) or model.config_class.__name__}]"


def _default(plan: ClassPlan, name: str, field: FieldPlan) -> Any:
    info = plan.config_class.model_fields[name]
    if info.default_factory_takes_validated_data:
        return None
    default = info.get_default(call_default_factory=True)
    if field.secret and default not in (None, ""):
        return REDACTED
    return _shown(default, name)


def _shown(value: object, name: str = "") -> Any:
    """A default as JSON types, without secrets: those that a class says, and those that a name says."""
    from pydantic import BaseModel
    from pydantic_core import to_jsonable_python

    from stackconf.resolve.render import SHOWN

    if isinstance(value, BaseModel):
        return SHOWN.render(value)
    if isinstance(value, Mapping):
        return {str(key): _shown(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)) and _has_models(value):
        return [_shown(inner, name) for inner in value]
    return redact_free(to_jsonable_python(value, fallback=str, inf_nan_mode="strings"), name)


def _has_models(values: Iterable[object]) -> bool:
    from pydantic import BaseModel

    return any(isinstance(each, (BaseModel, Mapping)) for each in values)


# Schema


def _schema(plan: ClassPlan) -> tuple[dict[str, Any] | None, str]:
    """The JSON schema of a config class by field names, or why there is none."""
    from pydantic.json_schema import GenerateJsonSchema

    class Schema(GenerateJsonSchema):
        def encode_default(self, dft: Any) -> Any:
            return spelled(_shown(dft))

        def handle_invalid_for_json_schema(self, *_: Any) -> dict[str, Any]:
            return {}  # what no schema can say may be anything

        def emit_warning(self, *_: Any) -> None:
            """Say nothing: a default that no JSON has a word for is left out."""

    try:
        schema = plan.config_class.model_json_schema(by_alias=False, schema_generator=Schema)
    except Exception as error:  # noqa: BLE001 (a plugin's class may raise anything)
        from stackconf.redact import described as said

        return None, f"pydantic makes no schema of it: {said(error)}"
    _mark(schema, plan)
    _without_secrets(schema)
    return schema, ""


def _mark(schema: dict[str, Any], plan: ClassPlan) -> None:
    """Mark the user fields of a class that somebody else wrote: the labels are not in the class. Those
    below its own fields are told by `fields` only: one class may stand in several places.
    """
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    for key, each in _properties(schema["$defs"][name] if name else schema):
        field = plan.fields.get(key)
        if field is not None and field.user and not each.get("user_field"):
            each.update(user_field=True, update=field.update or "restart")
        elif field is not None and field.user is None:
            each.pop("user_field", None)


def _without_secrets(schema: Any) -> None:
    """Redact the defaults of fields that their label or their name says are secret."""
    if isinstance(schema, list):
        for each in schema:
            _without_secrets(each)
    if not isinstance(schema, dict):
        return
    for name, each in _properties(schema):
        if each.get("default") not in (None, ""):
            each["default"] = REDACTED if each.get("secret") else redact_free(each["default"], name)
    for inner in schema.values():
        _without_secrets(inner)


def _properties(schema: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = schema.get("properties")
    if not isinstance(found, dict):
        return []
    return [(name, each) for name, each in found.items() if isinstance(each, dict)]
