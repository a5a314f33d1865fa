"""Types and bounds of a config class's fields, in the words of someone who writes YAML."""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_WORDS = {
    "SecretStr": "str",
    "SecretBytes": "str",
    "bytes": "str",
    "Path": "path",
    "dict": "mapping",
    "NoneType": "null",
    "Any": "anything",
    "object": "anything",
}
_NULL = " or null"
_LIMITS = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))


def type_text(annotation: Any, metadata: Iterable[object] = ()) -> str:
    """What a value may be. `metadata` is what pydantic keeps beside a field's annotation.

    >>> from annotated_types import Ge, Le
    >>> type_text(int | None, [Ge(1), Le(8)]), type_text(list[str]), type_text(Literal["a", "b"])
    ('int 1..8 or null', 'list of str', 'a | b')
    """
    text = _described(annotation)
    main = text.removesuffix(_NULL)
    null = _NULL if main != text else ""
    return " ".join([main, *_bounds(metadata)]) + null


def _described(annotation: Any) -> str:
    annotation = getattr(annotation, "__value__", annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        return _plain(annotation)
    if origin is Annotated:
        return type_text(arguments[0], arguments[1:])
    if origin in {Union, types.UnionType}:
        return _union(arguments)
    return _collection(origin, arguments)


def _plain(annotation: Any) -> str:
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " | ".join(str(member.value) for member in annotation)
    if hasattr(annotation, "model_fields"):
        return "mapping"
    name = getattr(annotation, "__name__", str(annotation))
    return _WORDS.get(name, name)


def _union(members: Sequence[Any]) -> str:
    real = dict.fromkeys(_described(member) for member in members if member is not type(None))
    null = [] if type(None) not in members else ["null"]
    return " or ".join([*real, *null])


def _collection(origin: Any, arguments: Sequence[Any]) -> str:
    inner = [_described(argument) for argument in arguments if argument is not ...]
    if not isinstance(origin, type):
        return " | ".join(map(str, arguments)) if origin is Literal else str(origin)
    if issubclass(origin, Mapping):
        return f"mapping to {inner[-1]}" if inner else "mapping"
    if issubclass(origin, (Sequence, AbstractSet)):
        return f"list of {inner[0]}" if inner else "list"
    return origin.__name__


def _bounds(metadata: Iterable[object]) -> Iterable[str]:
    found = {
        key: getattr(entry, key)
        for entry in metadata
        for key in ("ge", "gt", "le", "lt", "min_length", "max_length")
        if getattr(entry, key, None) is not None
    }
    if "ge" in found and "le" in found:
        yield f"{found.pop('ge')}..{found.pop('le')}"
    for key, sign in _LIMITS:
        if key in found:
            yield f"{sign} {found[key]}"
    if found.get("min_length"):
        yield f"(at least {found['min_length']} long)"
    if "max_length" in found:
        yield f"(at most {found['max_length']} long)"
