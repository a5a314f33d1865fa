"""What of an overlay counts: only what the provider labelled for users, and only over what is there.

Everything else is dropped, and every path that is dropped is reported with its reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from stackconf.redact import REDACTED, is_redacted
from stackconf.resolve.layers import (
    EMPTY,
    MISSING,
    SCALARS,
    Data,
    Path,
    merge_values,
    over_default,
    value_at,
)

if TYPE_CHECKING:
    from stackconf.fields import ClassPlan, FieldPlan

_NO_TAGS: frozenset[str] = frozenset()


class Dropped(NamedTuple):
    """A path of an overlay that was not taken, and why."""

    path: Path
    reason: str
    code: str = "not-user-field"


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


_NOT_USERS = "not a user field"
_NOT_THERE = "not a user field, and the stack has nothing there to change"
_LOCKED = "holds fields that a user may not set"
_STARS = "a redacted value, and not the one that is there"


class _Projection:
    """One overlay on its way through the plan; `MISSING` stands for a value of which nothing is kept."""

    __slots__ = ("dropped",)

    def __init__(self) -> None:
        self.dropped: list[Dropped] = []

    def drop(self, path: Path, reason: str, code: str = "not-user-field") -> Any:
        self.dropped.append(Dropped(path, reason, code))
        return MISSING

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
        settable = plan.settable_below if allowed else plan.settable
        for key, value in data.items():
            kind = type(value)
            plain = kind in SCALARS and not (kind is str and REDACTED in value)
            if plain and key in settable and key not in tags:
                kept[key] = value
                continue
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
            if not user and kind is not dict:
                self.drop((*above, key), _NOT_USERS)
            elif plain and name in settable:
                kept[name] = value
            else:
                taken = self.of_value(value, field, (*above, key), base.get(name, MISSING), allowed=user)
                if taken is not MISSING:
                    kept[name] = taken
        return kept

    def of_unknown(self, key: str, value: Any, above: Path, kept: dict[str, Any], *, known: bool) -> None:
        if not known:
            self.drop((*above, key), "unknown field", "unknown-field")
        elif holds_redacted(value):
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
        if holds_redacted(value):
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
            return self.drop(path, _STARS, "redacted") if holds_redacted(value) else dict(value)
        base = over_default(below if type(below) is dict else {}, plan) if model is there else EMPTY
        tags = plan.tags if stays else _NO_TAGS
        kept = self.of_class(value, model, path, base, allowed=allowed, tags=tags)
        return kept or self.nothing(value, path, allowed=allowed)

    def of_mapping(self, value: Data, plan: FieldPlan, path: Path, below: Any, *, allowed: bool) -> Any:
        item = plan.item
        assert item is not None  # noqa: S101 (asked before)
        base = over_default({} if below is MISSING else below, plan)
        base = base if type(base) is dict else {}
        kept: dict[str, Any] = {}
        for key, inner in value.items():
            taken = self.of_value(inner, item, (*path, key), base.get(key, MISSING), allowed=allowed)
            if taken is not MISSING:
                kept[key] = taken
        return kept or self.nothing(value, path, allowed=allowed)

    def of_list(self, value: list[Any], item: FieldPlan, path: Path) -> list[Any]:
        """A list replaces what is there, so its items are over nothing."""
        taken = [
            self.of_value(inner, item, (*path, index), MISSING, allowed=True)
            for index, inner in enumerate(value)
        ]
        return [each for each in taken if each is not MISSING]

    def nothing(self, given: Data, path: Path, *, allowed: bool) -> Any:
        """What stands for a mapping of which nothing is left. An empty one counts where it is the
        user's, and an item of a list keeps its place.
        """
        if allowed and (not given or isinstance(path[-1], int)):
            return {}
        return MISSING if given else self.drop(path, _NOT_USERS)


def _member_below(plan: FieldPlan, below: Any) -> ClassPlan | None:
    """The class of the model that the lower layers have, or the class's own default gives."""
    if below is MISSING or (below == {} and plan.default_member is not None):
        return plan.default_member
    if type(below) is not dict:
        return None
    if len(plan.models) == 1:
        return plan.models[0]
    return plan.model_for(below if plan.default is None else merge_values(plan.default, below, plan))


def _is_there(plan: FieldPlan, below: Any) -> bool:
    """Whether the lower layers, or the class's own default, have anything at a field."""
    if below is MISSING or (below == {} and plan.kind == "mapping"):
        return plan.filled
    return below is not None and below != []


def _member_meant(value: Data, plan: FieldPlan, there: ClassPlan | None) -> ClassPlan | None:
    """The class that a user's mapping is for, where they may choose."""
    tagged = plan.tagged(value)
    if tagged is None and there is not None and all(key in there.keys for key in value):
        return there
    return tagged or plan.model_for(value)


def holds_redacted(value: Any) -> bool:
    """Whether a value is, or has below it, what is shown instead of a secret."""
    if type(value) is dict:
        return any(map(holds_redacted, value.values()))
    return any(map(holds_redacted, value)) if type(value) is list else is_redacted(value)


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
        elif holds_redacted(value) and value == there:
            same.append((*above, name))
        else:
            kept[key] = value
    return kept, same
