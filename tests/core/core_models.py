"""Config classes at random, with values for them, and an independent reading of their labels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Annotated, Any, Literal

from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

NAMES = ("alpha", "beta", "gamma", "delta")
OTHER_NAMES = ("omega", "sigma")
LABELS = st.sampled_from((True, False, None, None))
_number = count()


@st.composite
def classes(draw, depth: int = 2, tag: str | None = None, names: tuple[str, ...] = NAMES) -> type[BaseModel]:
    """A config class of up to four fields; with `tag`, a member of a union."""
    fields: dict[str, Any] = {}
    if tag is not None:
        fields["kind"] = (Literal[tag], _field(tag, draw(LABELS)))  # type: ignore[valid-type]
    for name in draw(st.lists(st.sampled_from(names), unique=True, min_size=1, max_size=4)):
        annotation, default = draw(_types(depth))
        alias = draw(st.sampled_from((None, None, None, f"{name}Alias")))
        fields[name] = (annotation, _field(default, draw(LABELS), alias))
    return create_model(f"Config{next(_number)}", **fields)


def _field(default: object, label: object, alias: str | None = None) -> Any:
    extra = None if label is None else {"user_field": label}
    return Field(default, validation_alias=alias, json_schema_extra=extra)


@st.composite
def _types(draw, depth: int) -> tuple[Any, Any]:  # noqa: C901, PLR0911 (one case a kind of type)
    kinds = ["int", "text", "maybe", "ints", "counts"]
    if depth:
        kinds += ["model", "optional", "models", "named", "tagged", "open"]
    kind = draw(st.sampled_from(kinds))
    match kind:
        case "int":
            return int, 0
        case "text":
            return str, "none"
        case "maybe":
            return int | None, None
        case "ints":
            return list[int], [0]
        case "counts":
            return dict[str, int], {"zero": 0}
    inner = draw(classes(depth - 1))
    match kind:
        case "model":
            return inner, inner()
        case "optional":
            return inner | None, draw(st.sampled_from((None, inner())))
        case "models":
            return list[inner], []
        case "named":
            return dict[str, inner], draw(st.sampled_from(({}, {"one": inner()})))
        case "tagged":
            first, second = draw(classes(depth - 1, tag="a")), draw(classes(depth - 1, tag="b"))
            both = Annotated[first | second, Field(discriminator="kind")]
            return both, draw(st.sampled_from((first(), second())))
    other = draw(classes(depth - 1, names=OTHER_NAMES))  # told apart by their keys
    return inner | other, inner()


@st.composite
def values_for(draw, config_class: type[BaseModel]) -> dict[str, Any]:
    """A valid mapping for a class: any of its fields, by name or by alias."""
    values: dict[str, Any] = {}
    for name, info in config_class.model_fields.items():
        required = name == "kind"
        if not required and not draw(st.booleans()):
            continue
        value = draw(_value(info.annotation))
        key = (
            info.validation_alias if isinstance(info.validation_alias, str) and draw(st.booleans()) else name
        )
        values[key] = value
    return values


def _value(annotation: Any) -> st.SearchStrategy[Any]:  # noqa: PLR0911 (one a kind of type)
    if annotation is int:
        return st.integers(1, 9)
    if annotation is str:
        return st.text("xyz", min_size=1, max_size=3)
    if annotation is type(None):
        return st.none()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return values_for(annotation)
    origin = getattr(annotation, "__origin__", None)
    arguments = getattr(annotation, "__args__", ())
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is Annotated:
        return _value(arguments[0])
    if origin is list:
        return st.lists(_value(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(st.sampled_from(("one", "two", "zero")), _value(arguments[1]), max_size=2)
    return st.one_of([_value(each) for each in arguments])


@st.composite
def config_and_data(draw) -> tuple[type[BaseModel], dict[str, Any], list[dict[str, Any]]]:
    """A class, what a stack file says of it, and one or two overlays, with made-up keys in them."""
    config_class = draw(classes())
    overlays = []
    for _ in range(draw(st.integers(1, 2))):
        values = draw(values_for(config_class))
        if draw(st.booleans()):
            values["made_up"] = 1
        overlays.append(values)
    return config_class, draw(values_for(config_class)), overlays


def hidden_parts(config: BaseModel) -> dict[tuple[str, ...], tuple[Any, Any]]:
    """Every leaf that is not the user's with its class's own default, read from the object alone.

    The nearest label decides. A list is one leaf. Which class and which keys stand at a field that
    is not the user's is not theirs either.
    """
    return {path: (plainly(value), plainly(default)) for path, value, default in _hidden(config, ())}


def _hidden(
    value: Any, path: tuple[str, ...], default: Any = None, *, visible: bool = False
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    if isinstance(value, BaseModel):
        if not visible:
            yield (*path, "class"), type(value).__name__, type(default).__name__
        for name, info in type(value).model_fields.items():
            label = (info.json_schema_extra or {}).get("user_field")
            user = visible if label is None else label
            yield from _hidden(getattr(value, name), (*path, name), info.default, visible=user)
    elif isinstance(value, dict):
        if not visible:
            yield (*path, "keys"), sorted(value), sorted(default or {})
        for key, inner in value.items():
            below = default.get(key) if isinstance(default, dict) else None
            yield from _hidden(inner, (*path, key), below, visible=visible)
    elif not visible:
        yield path, value, default
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _hidden(inner, (*path, str(index)), visible=True)


def plainly(value: Any) -> Any:
    """A value to compare by, whatever class its models are of."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    return [plainly(each) for each in value] if isinstance(value, list) else value


def outline(config_class: type[BaseModel], depth: int = 0) -> str:
    """A class as text, for the report of a failing example."""
    text = ""
    for name, info in config_class.model_fields.items():
        label = (info.json_schema_extra or {}).get("user_field")
        text += f"{'  ' * depth}{name} ({info.validation_alias}) user={label} default={info.default!r}"
        text += f" type={info.annotation}\n"
        for inner in _models_in(info.annotation):
            text += outline(inner, depth + 1)
    return text


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for each in getattr(annotation, "__args__", ()) for model in _models_in(each)]
