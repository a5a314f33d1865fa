"""Values of any kind as strict JSON, and back: it knows no infinity, no NaN and no key but text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_FLOAT, _MAPPING = "$float", "$mapping"


def packed(value: object) -> Any:
    """A value as JSON types. What JSON has no word for becomes its text.

    >>> packed({"limit": float("inf"), 8: (1, 2)})
    {'limit': {'$float': 'inf'}, '8': [1, 2]}
    """
    if value is None or isinstance(value, (str, int)):  # first: to ask for a mapping is slow
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(value)}
    if isinstance(value, Mapping):
        inside = {str(key): packed(inner) for key, inner in value.items()}
        return {_MAPPING: inside} if inside.keys() in ({_FLOAT}, {_MAPPING}) else inside
    if isinstance(value, (list, tuple)):
        return [packed(inner) for inner in value]
    return value if isinstance(value, float) else str(value)


def spelled(value: object) -> Any:
    """A value as JSON types in a document that others read too: infinity and NaN as words, which a
    field for numbers takes.

    >>> spelled({"limit": float("inf"), 8: (1, 2)})
    {'limit': 'inf', '8': [1, 2]}
    """
    if value is None or isinstance(value, (str, int)):  # first: to ask for a mapping is slow
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): spelled(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [spelled(inner) for inner in value]
    return value if isinstance(value, float) else str(value)


def unpacked(value: Any) -> Any:
    """What `packed` was given. Raises `ValueError` for what it never makes.

    >>> unpacked({"limit": {"$float": "inf"}, "8": [1, 2]})
    {'limit': inf, '8': [1, 2]}
    """
    if isinstance(value, dict):
        if value.keys() == {_FLOAT}:
            return _special(value[_FLOAT])
        if value.keys() == {_MAPPING}:
            value = value[_MAPPING]
            if not isinstance(value, dict):
                raise ValueError(f"a mapping is not {type(value).__name__}")
        return {key: unpacked(inner) for key, inner in value.items()}
    return [unpacked(inner) for inner in value] if isinstance(value, list) else value


def _special(text: object) -> float:
    if text not in {"inf", "-inf", "nan"}:
        raise ValueError("a special number is inf, -inf or nan")
    return float(str(text))
