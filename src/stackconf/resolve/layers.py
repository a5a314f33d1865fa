"""Layers of plain data: rename and merge them by a class's plan.

Merging: mappings merge by key, anything else replaces, and a null is a value like any other.
Where a union of models is told apart by a tag and the upper layer changes the tag, the upper
mapping replaces the lower one, for the fields of one member mean nothing to another. Merging is
associative except for that case. Layers are never changed; a result shares what it did not touch.

Every mapping in a layer is a plain `dict` and every sequence a `list`: whoever brings a layer in
makes it so (`plain`), and the exact type test here is what keeps a merge cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan, FieldPlan

Data: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str | int, ...]

EMPTY: Data = {}
MISSING: Any = object()
"""Stands for "nothing there", where `None` is a value."""


def plain(value: Any) -> Any:
    """The value with every mapping a `dict` and every sequence a `list`, all the way down.

    >>> from types import MappingProxyType
    >>> plain(MappingProxyType({"a": ({"b": 1},)}))
    {'a': [{'b': 1}]}
    """
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def dotted(path: Iterable[str | int]) -> str:
    """A path as people write it.

    >>> dotted(("kvstore", "hosts", 0, "port"))
    'kvstore.hosts[0].port'
    """
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def merge(low: Data, high: Data, plan: ClassPlan | None = None) -> Data:
    """`high` over `low`, key by key.

    >>> merge({"a": {"x": 1, "y": 2}, "b": [1]}, {"a": {"y": None}, "b": []})
    {'a': {'x': 1, 'y': None}, 'b': []}
    """
    if not low:
        return high
    if not high:
        return low
    # Two dictionaries are joined by `|` in a third of the time that the general form takes.
    merged = low | high if type(low) is dict and type(high) is dict else {**low, **high}
    for key, value in high.items():
        if type(value) is dict and key in low and type(below := low[key]) is dict:
            merged[key] = merge_values(below, value, None if plan is None else plan.fields.get(key))
    return merged


def merge_values(low: Data, high: Data, plan: FieldPlan | None) -> Data:
    """`high` over `low`, both mappings, where one field says what they are."""
    if plan is None:
        return merge(low, high)
    if len(plan.models) == 1:
        return merge(low, high, plan.models[0])
    if plan.kind == "mapping" and plan.item is not None:
        return _merge_mapping(low, high, plan.item)
    if not plan.models:
        return merge(low, high)
    if _meant_for_another(low, high, plan):
        return high
    return merge(low, high, plan.model_for({**low, **high}))


def _meant_for_another(low: Data, high: Data, plan: FieldPlan) -> bool:
    """Whether two layers mean different members of a union: by the tag, or the upper one by keys
    that the lower one's member does not know.
    """
    meant = plan.tagged(high)
    if meant is not None:
        return meant is not plan.tagged(low)
    below = plan.model_for(low)
    if below is None or all(key in below.keys for key in high):
        return False
    return plan.model_for(high) not in {None, below}


def _merge_mapping(low: Data, high: Data, item: FieldPlan) -> Data:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        if type(value) is dict and type(below) is dict:
            merged[key] = merge_values(below, value, item)
        else:
            merged[key] = value
    return merged


def over_class_defaults(data: Data, plan: ClassPlan) -> Data:
    """`data` with each of its mappings merged over the class's own default for that field.

    pydantic would replace such a default as a whole; here the class is the lowest layer.
    """
    full: dict[str, Any] | None = None
    for name in plan.layered:
        value = data.get(name)
        new = over_default(value, plan.fields[name])
        if new is not value:
            full = dict(data) if full is None else full
            full[name] = new
    return data if full is None else full


def over_default(value: Any, plan: FieldPlan) -> Any:
    """A field's value over the class's own default for it; lists and scalars replace that."""
    if not plan.layered:
        return value
    if type(value) is list and plan.kind == "list" and plan.item is not None:
        return [over_default(inner, plan.item) for inner in value]
    if type(value) is not dict:
        return value
    if plan.default is not None:
        value = merge_values(plan.default, value, plan)
    if plan.kind == "mapping" and plan.item is not None:
        item = plan.item
        return {key: over_default(inner, item) for key, inner in value.items()}
    inner = plan.model_for(value)
    return value if inner is None else over_class_defaults(value, inner)


def canonical(data: Data, plan: ClassPlan) -> Data:
    """`data` with every alias replaced by its field's name, so that layers meet on the same key.

    A field that is given twice, under two of its names, keeps the first; the other stays as a key
    that no field has, for whoever looks for those.
    """
    if not plan.aliased:
        return data
    named: dict[str, Any] = {}
    for key, value in data.items():
        name = plan.name_of(key)
        if name is None or name in named or (name != key and name in data):
            named[key] = value
        else:
            named[name] = _canonical_value(value, plan.fields[name])
    return _lifted(named, plan) if plan.lifted else named


def _lifted(named: dict[str, Any], plan: ClassPlan) -> dict[str, Any]:
    """With every field that a path gives (`AliasPath`) under its own name."""
    for name, paths in plan.lifted.items():
        for path in paths:
            value = value_at(named, path, MISSING)
            if name not in named and value is not MISSING:
                named[name] = _canonical_value(value, plan.fields[name])
    return {key: value for key, value in named.items() if key not in plan.open_keys}


def _canonical_value(value: Any, plan: FieldPlan) -> Any:
    if type(value) is dict:
        if plan.kind == "mapping" and plan.item is not None:
            item = plan.item
            return {key: _canonical_value(inner, item) for key, inner in value.items()}
        model = plan.model_for(value) or next(iter(plan.models), None)
        return canonical(value, model) if model else value
    if type(value) is list and plan.kind == "list" and plan.item is not None:
        return [_canonical_value(inner, plan.item) for inner in value]
    return value


SCALARS = frozenset({str, int, float, bool, type(None)})


def leaves(data: object, above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf of nested mappings with its path. Lists and empty mappings are leaves.

    >>> list(leaves({"a": {"b": 1, "c": [1, 2]}, "d": {}}))
    [(('a', 'b'), 1), (('a', 'c'), [1, 2]), (('d',), {})]
    """
    if isinstance(data, Mapping) and (data or not above):
        for key, value in data.items():
            yield from leaves(value, (*above, key))
    else:
        yield above, data


def value_at(data: object, path: Iterable[str | int], default: Any = None) -> Any:
    """What stands at a path, or `default`.

    >>> value_at({"a": {"b": [1, 2]}}, ("a", "b", 1))
    2
    """
    here: Any = data
    for step in path:
        if isinstance(here, Mapping):
            here = here.get(step, MISSING)
        elif isinstance(here, (list, tuple)) and isinstance(step, int) and 0 <= step < len(here):
            here = here[step]
        else:
            return default
        if here is MISSING:
            return default
    return here
