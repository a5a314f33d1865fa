"""The providers of a stack, the installed provider types, and what can be set on one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from stackconf.packing import packed
from stackconf.shapes.reading import Given, choice, flag, text

if TYPE_CHECKING:
    from stackconf.described import DescribedField, DescribedType, ListedProvider, ListedType
    from stackconf.types import Accelerated


def listed_provider_data(listed: ListedProvider) -> dict[str, Any]:
    """One provider of a stack."""
    return {
        "provider": listed.provider,
        "provider_type": listed.provider_type,
        "state": listed.state,
        "last_apply": listed.last_apply,
        "plugin": listed.plugin,
    }


def listed_provider_from(data: object) -> ListedProvider:
    """What `listed_provider_data` wrote."""
    from stackconf.described import ListedProvider, ProviderState

    given = Given(data)
    return ListedProvider(
        given.text("provider"),
        given.text("provider_type"),
        given.one("state", choice(ProviderState)),
        given.maybe("last_apply", text),
        given.maybe("plugin", text),
    )


def listed_type_data(listed: ListedType) -> dict[str, Any]:
    """One installed type."""
    return {"type": listed.type, "state": listed.state, "plugin": listed.plugin}


def listed_type_from(data: object) -> ListedType:
    """What `listed_type_data` wrote."""
    from stackconf.described import ListedType, TypeState

    given = Given(data)
    return ListedType(given.text("type"), given.one("state", choice(TypeState)), given.text("plugin"))


def type_data(kind: DescribedType) -> dict[str, Any]:
    """A type with its fields and its JSON schema; `schema_problem` is there where that is not."""
    return {
        "type": kind.type,
        "description": kind.description,
        "plugin": kind.plugin,
        "config_class": kind.config_class,
        "api_dependencies": list(kind.api_dependencies),
        "accelerators": kind.accelerators,
        "fields": [_field_data(each) for each in kind.fields],
        "json_schema": None if kind.json_schema is None else dict(kind.json_schema),
        **({"schema_problem": kind.schema_problem} if kind.schema_problem else {}),
    }


def type_from(data: object) -> DescribedType:
    """What `type_data` wrote."""
    from stackconf.described import DescribedType

    given = Given(data)
    schema = given.maybe("json_schema", Given)
    return DescribedType(
        given.text("type"),
        given.text("description"),
        given.text("plugin"),
        given.text("config_class"),
        given.texts("api_dependencies"),
        given.one("accelerators", _accelerators),
        given.each("fields", _field_from),
        None if schema is None else dict(schema.data),
        given.some_text("schema_problem"),
    )


def _accelerators(data: object) -> Accelerated | Literal["depends"]:
    if data == "little":
        return "little"
    return "depends" if data == "depends" else flag(data)


def _field_data(each: DescribedField) -> dict[str, Any]:
    return {
        "path": each.path,
        "type": each.type,
        "required": each.required,
        "default": packed(each.default),
        "user_field": each.user_field,
        "update": each.update,
        "secret": each.secret,
        "description": each.description,
        "aliases": list(each.aliases),
    }


def _field_from(data: object) -> DescribedField:
    from stackconf.described import DescribedField
    from stackconf.types import UpdateClass

    given = Given(data)
    return DescribedField(
        given.text("path"),
        given.text("type"),
        given.flag("required"),
        given.value("default"),
        given.flag("user_field"),
        given.one("update", choice(UpdateClass)),
        given.flag("secret"),
        given.some_text("description"),
        given.texts("aliases"),
    )
