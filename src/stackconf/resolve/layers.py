"""Layers of plain data: rename, merge, project and compare them by a class's plan.

Merging: mappings merge by key, anything else replaces, and a null is a value like any other.
Where a union of models is told apart by a tag and the upper layer changes the tag, the upper
mapping replaces the lower one, for the fields of one member mean nothing to another. Merging is
associative except for that case. Layers are never changed; a result shares what it did not touch.

Every mapping in a layer is a plain `dict` and every sequence a `list`: whoever brings a layer in
makes it so (`plain`), and the exact type test here is what keeps a merge cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from stackconf.redact import is_redacted, names_secret

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan, FieldPlan

Data: TypeAlias = Mapping[str, Any]
Path: TypeAlias = tuple[str | int, ...]

EMPTY: Data = {}
_NO_TAGS: frozenset[str] = frozenset()


@frozen
class Dropped:
    """A path of an overlay that was not taken, and why."""

    path: Path
    reason: str
    code: str = "not-user-field"


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
    merged = dict(low)
    for key, value in high.items():
        if type(value) is dict and type(below := merged.get(key)) is dict:
            merged[key] = _merge_values(below, value, plan.fields.get(key) if plan else None)
        else:
            merged[key] = value
    return merged


def _merge_values(low: Data, high: Data, plan: FieldPlan | None) -> Data:
    if plan is None:
        return merge(low, high)
    if plan.kind == "mapping" and plan.item is not None:
        return _merge_mapping(low, high, plan.item)
    if len(plan.models) > 1:
        meant = plan.tagged(high)
        if meant is not None and meant is not plan.tagged(low):
            return high
        return merge(low, high, plan.model_for({**low, **high}))
    return merge(low, high, plan.models[0] if plan.models else None)


def _merge_mapping(low: Data, high: Data, item: FieldPlan) -> Data:
    merged = dict(low)
    for key, value in high.items():
        below = merged.get(key)
        if type(value) is dict and type(below) is dict:
            merged[key] = _merge_values(below, value, item)
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
        if type(value) is not dict:
            continue
        field = plan.fields[name]
        if field.default is not None:
            new = _merge_values(field.default, value, field)
        elif (inner := field.model_for(value)) is not None:
            new = over_class_defaults(value, inner)
        else:
            continue
        full = dict(data) if full is None else full
        full[name] = new
    return data if full is None else full


def canonical(data: Data, plan: ClassPlan) -> Data:
    """`data` with every alias replaced by its field's name, so that layers meet on the same key."""
    if not plan.aliased:
        return data
    named: dict[str, Any] = {}
    for key, value in data.items():
        name = plan.name_of(key)
        named[name or key] = _canonical_value(value, plan.fields[name]) if name else value
    return named


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


def project(overlay: Data, plan: ClassPlan) -> tuple[dict[str, Any], list[Dropped]]:
    """What of an overlay a user may set, and every path that was dropped.

    A redacted value sent back is left out: it means "keep what is there".

    >>> from pydantic import BaseModel
    >>> from stackconf.fields import plan_of, user_field
    >>> class Config(BaseModel):
    ...     url: str = user_field("x")
    ...     port: int = 1
    >>> project({"url": "y", "port": 2}, plan_of(Config))
    ({'url': 'y'}, [Dropped(path=('port',), reason='not a user field', code='not-user-field')])
    """
    dropped: list[Dropped] = []
    kept = _project_class(overlay, plan, (), dropped, allowed=False)
    return kept, dropped


def _project_class(
    data: Data,
    plan: ClassPlan,
    above: Path,
    dropped: list[Dropped],
    *,
    allowed: bool,
    tags: frozenset[str] = _NO_TAGS,
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in data.items():
        name = plan.keys.get(key)
        if name is not None:
            field = plan.fields[name]
            user = allowed if field.user is None else field.user
            if name in tags and not allowed:
                user = False
            if user and not field.secret and type(value) in SCALARS:
                kept[name] = value
                continue
            taken, inner = _project_value(value, field, (*above, key), dropped, allowed=user)
            if taken:
                kept[name] = inner
        elif allowed and plan.extra == "allow":
            kept[key] = value
        else:
            dropped.append(Dropped((*above, key), "unknown field", "unknown-field"))
    return kept


def _project_value(
    value: Any, plan: FieldPlan, path: Path, dropped: list[Dropped], *, allowed: bool
) -> tuple[bool, Any]:
    mapping = type(value) is dict
    if mapping and plan.kind == "model":
        return _project_model(value, plan, path, dropped, allowed=allowed)
    if mapping and plan.kind == "mapping" and plan.item is not None:
        return _project_mapping(value, plan.item, path, dropped, allowed=allowed)
    if not allowed:
        dropped.append(Dropped(path, "not a user field"))
        return False, None
    if is_redacted(value) and plan.secret:
        return False, None
    if type(value) is list and plan.kind == "list" and plan.item is not None:
        return True, _project_list(value, plan.item, path, dropped)
    return True, value


def _project_model(
    value: Data, plan: FieldPlan, path: Path, dropped: list[Dropped], *, allowed: bool
) -> tuple[bool, Any]:
    model = plan.model_for(value)
    if model is None and not allowed:
        model = _member_with(value, plan.models)
    if model is None:
        if allowed:
            return True, dict(value)
        dropped.append(Dropped(path, "not a user field"))
        return False, None
    before = len(dropped)
    kept = _project_class(value, model, path, dropped, allowed=allowed, tags=plan.tags)
    if kept or (allowed and len(dropped) == before):
        return True, kept
    if not value:
        dropped.append(Dropped(path, "not a user field"))
    return False, None


def _member_with(value: Data, models: Sequence[ClassPlan]) -> ClassPlan | None:
    """The member of a union that knows the most of the keys: an overlay need not repeat the tag."""
    return max(models, key=lambda plan: len(plan.keys.keys() & value.keys()), default=None)


def _project_mapping(
    value: Data, item: FieldPlan, path: Path, dropped: list[Dropped], *, allowed: bool
) -> tuple[bool, Any]:
    user = allowed if item.user is None else item.user
    kept: dict[str, Any] = {}
    for key, inner in value.items():
        if user and is_redacted(inner) and (item.secret or names_secret(str(key))):
            continue
        taken, projected = _project_value(inner, item, (*path, key), dropped, allowed=user)
        if taken:
            kept[key] = projected
    if kept or (user and not value):
        return True, kept
    if not value:
        dropped.append(Dropped(path, "not a user field"))
    return False, None


def _project_list(value: list[Any], item: FieldPlan, path: Path, dropped: list[Dropped]) -> list[Any]:
    kept = []
    for index, inner in enumerate(value):
        taken, projected = _project_value(inner, item, (*path, index), dropped, allowed=True)
        if taken:
            kept.append(projected)
    return kept


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


_MISSING: Any = object()


def value_at(data: object, path: Iterable[str | int], default: Any = None) -> Any:
    """What stands at a path, or `default`.

    >>> value_at({"a": {"b": [1, 2]}}, ("a", "b", 1))
    2
    """
    here: Any = data
    for step in path:
        if isinstance(here, Mapping):
            here = here.get(step, _MISSING)
        elif isinstance(here, (list, tuple)) and isinstance(step, int) and 0 <= step < len(here):
            here = here[step]
        else:
            return default
        if here is _MISSING:
            return default
    return here
