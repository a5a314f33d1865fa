"""Layers of plain data: rename, merge, project and compare them by a class's plan.

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

from attrs import frozen

from stackconf.redact import REDACTED, is_redacted

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
        if _meant_for_another(low, high, plan):
            return high
        return merge(low, high, plan.model_for({**low, **high}))
    return merge(low, high, plan.models[0] if plan.models else None)


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
        new = _over_default(value, plan.fields[name])
        if new is not value:
            full = dict(data) if full is None else full
            full[name] = new
    return data if full is None else full


def _over_default(value: Any, plan: FieldPlan) -> Any:
    if type(value) is list and plan.kind == "list" and plan.item is not None:
        return [_over_default(inner, plan.item) for inner in value]
    if type(value) is not dict:
        return value
    if plan.default is not None:
        value = _merge_values(plan.default, value, plan)
    if plan.kind == "mapping" and plan.item is not None:
        item = plan.item
        return {key: _over_default(inner, item) for key, inner in value.items()}
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
            value = value_at(named, path, _MISSING)
            if name not in named and value is not _MISSING:
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


def project(overlay: Data, plan: ClassPlan, base: Data = EMPTY) -> tuple[dict[str, Any], list[Dropped]]:
    """What of an overlay a user may set over `base`, the layers below it, and every path dropped.

    Below a field that is not the user's own, only what is there can be changed: an overlay adds no
    mapping to it, and chooses no other member of a union. Nothing that a user may set takes away a
    field which is labelled as not the user's.

    >>> from pydantic import BaseModel
    >>> from stackconf.fields import plan_of, user_field
    >>> class Config(BaseModel):
    ...     url: str = user_field("x")
    ...     port: int = 1
    >>> project({"url": "y", "port": 2}, plan_of(Config))
    ({'url': 'y'}, [Dropped(path=('port',), reason='not a user field', code='not-user-field')])
    """
    projection = _Projection()
    return projection.of_class(overlay, plan, (), base, allowed=False), projection.dropped


_MISSING: Any = object()
_NOT_USERS = "not a user field"
_NOT_THERE = "not a user field, and the stack has nothing there to change"
_LOCKED = "holds fields that a user may not set"
_STARS = "a redacted value, and not the one that is there"


class _Projection:
    """One overlay on its way through the plan; `_MISSING` stands for a value of which nothing is kept."""

    def __init__(self) -> None:
        self.dropped: list[Dropped] = []

    def drop(self, path: Path, reason: str, code: str = "not-user-field") -> Any:
        self.dropped.append(Dropped(path, reason, code))
        return _MISSING

    def of_class(
        self,
        data: Data,
        plan: ClassPlan,
        above: Path,
        base: Data,
        *,
        allowed: bool,
        tags: frozenset[str] = _NO_TAGS,
    ) -> dict[str, Any]:
        """The kept part of a mapping for one class; `tags` may not make it another member's."""
        kept: dict[str, Any] = {}
        for key, value in data.items():
            name = plan.keys.get(key)
            if name is None:
                self.of_unknown(key, value, above, kept, known=allowed and plan.extra == "allow")
                continue
            if (name != key and name in data) or name in kept:
                self.drop((*above, key), f"the same field as `{name}`", "given-twice")
                continue
            field = plan.fields[name]
            user = allowed if field.user is None else field.user
            if name in tags and not plan.is_tagged({name: value}):
                user = False
            kind = type(value)
            if not user and kind is not dict:
                self.drop((*above, key), _NOT_USERS)
                continue
            if kind in SCALARS and not (field.secret or field.locks or (kind is str and REDACTED in value)):
                kept[name] = value
                continue
            taken = self.of_value(value, field, (*above, key), base.get(name, _MISSING), allowed=user)
            if taken is not _MISSING:
                kept[name] = taken
        return kept

    def of_unknown(self, key: str, value: Any, above: Path, kept: dict[str, Any], *, known: bool) -> None:
        if not known:
            self.drop((*above, key), "unknown field", "unknown-field")
        elif _holds_redacted(value):
            self.drop((*above, key), _STARS, "redacted")
        else:
            kept[key] = value

    def of_value(self, value: Any, plan: FieldPlan, path: Path, below: Any, *, allowed: bool) -> Any:
        """The kept part of any value; `below` is what the lower layers have there."""
        if type(value) is dict and plan.kind == "model":
            return self.of_model(value, plan, path, below, allowed=allowed)
        if type(value) is dict and plan.kind == "mapping" and plan.item is not None:
            return self.of_mapping(value, plan, path, below, allowed=allowed)
        locked = plan.locks and _is_there(plan, below)
        if not allowed or locked:
            return self.drop(path, _LOCKED if allowed else _NOT_USERS)
        if _holds_redacted(value):
            return self.drop(path, _STARS, "redacted")
        if plan.kind == "list" and plan.item is not None and type(value) is list:
            return self.of_list(value, plan.item, path)
        return value

    def of_model(self, value: Data, plan: FieldPlan, path: Path, below: Any, *, allowed: bool) -> Any:
        there = _member_below(plan, below)
        if there is None and not allowed:
            return self.drop(path, _NOT_THERE)
        stays = there is not None and (not allowed or plan.locks)
        model = there if stays else _member_meant(value, plan, there)
        if model is None:
            if plan.locks:
                return self.drop(path, _LOCKED)
            return self.drop(path, _STARS, "redacted") if _holds_redacted(value) else dict(value)
        base = _over_default(below if type(below) is dict else {}, plan) if model is there else EMPTY
        tags = plan.tags if stays else _NO_TAGS
        kept = self.of_class(value, model, path, base, allowed=allowed, tags=tags)
        return self.something(kept, value, path, allowed=allowed)

    def of_mapping(self, value: Data, plan: FieldPlan, path: Path, below: Any, *, allowed: bool) -> Any:
        item = plan.item
        assert item is not None  # noqa: S101 (asked before)
        base = _over_default({} if below is _MISSING else below, plan)
        base = base if type(base) is dict else {}
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            taken = self.of_value(inner, item, (*path, key), base.get(key, _MISSING), allowed=allowed)
            if taken is not _MISSING:
                kept[key] = taken
        return self.something(kept, value, path, allowed=allowed)

    def of_list(self, value: list[Any], item: FieldPlan, path: Path) -> list[Any]:
        """A list replaces what is there, so its items are over nothing."""
        taken = [
            self.of_value(inner, item, (*path, index), _MISSING, allowed=True)
            for index, inner in enumerate(value)
        ]
        return [each for each in taken if each is not _MISSING]

    def something(self, kept: dict[str, Any], given: Data, path: Path, *, allowed: bool) -> Any:
        """The mapping, unless nothing of it is left; an empty one counts where it is the user's."""
        if kept or (allowed and not given):
            return kept
        return _MISSING if given else self.drop(path, _NOT_USERS)


def _member_below(plan: FieldPlan, below: Any) -> ClassPlan | None:
    """The class of the model that the lower layers have, or the class's own default gives."""
    if below is _MISSING or (below == {} and plan.default_member is not None):
        return plan.default_member
    if type(below) is not dict:
        return None
    return plan.model_for(below if plan.default is None else _merge_values(plan.default, below, plan))


def _is_there(plan: FieldPlan, below: Any) -> bool:
    """Whether the lower layers, or the class's own default, have anything at a field."""
    if below is _MISSING or (below == {} and plan.kind == "mapping"):
        return plan.filled
    return below is not None and below != []


def _member_meant(value: Data, plan: FieldPlan, there: ClassPlan | None) -> ClassPlan | None:
    """The class that a user's mapping is for, where they may choose."""
    tagged = plan.tagged(value)
    if tagged is None and there is not None and all(key in there.keys for key in value):
        return there
    return tagged or plan.model_for(value)


def _holds_redacted(value: Any) -> bool:
    if type(value) is dict:
        return any(map(_holds_redacted, value.values()))
    return any(map(_holds_redacted, value)) if type(value) is list else is_redacted(value)


def without_shown(
    data: Data, shown: object, plan: ClassPlan | None = None, above: Path = ()
) -> tuple[dict[str, Any], list[Path]]:
    """`data` without the redacted values that are the ones `shown`, and the paths of those.

    A redacted value sent back means "keep what is there".

    >>> without_shown({"url": "x", "key": "********"}, {"url": "y", "key": "********"})
    ({'url': 'x'}, [('key',)])
    """
    kept: dict[str, Any] = {}
    same: list[Path] = []
    for key, value in data.items():
        name = plan.keys.get(key, key) if plan else key
        there = value_at(shown, (name,))
        if type(value) is dict and value:
            field = plan.fields.get(name) if plan else None
            inner, found = without_shown(
                value, there, field.model_for(value) if field else None, (*above, name)
            )
            same += found
            if inner:
                kept[key] = inner
        elif _holds_redacted(value) and value == there:
            same.append((*above, name))
        else:
            kept[key] = value
    return kept, same


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
            here = here.get(step, _MISSING)
        elif isinstance(here, (list, tuple)) and isinstance(step, int) and 0 <= step < len(here):
            here = here[step]
        else:
            return default
        if here is _MISSING:
            return default
    return here
