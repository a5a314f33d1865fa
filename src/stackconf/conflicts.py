"""Two people change one configuration: what each changed, and what that comes to together.

Configurations in, configurations and conflicts out; only `conflict_of` reads a store. A leaf is a
value, a list or an empty mapping; what is not there is `ABSENT`, for `None` is a value like any other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, get_args

from attrs import evolve, field, frozen

from stackconf.errors import Conflict, InvalidConfig, RevisionLost, UnknownName
from stackconf.resolve.layers import Path, dotted, value_at
from stackconf.resolve.references import shown

if TYPE_CHECKING:
    from stackconf.store.base import Revision, State, Store

OnConflict: TypeAlias = Literal["refuse", "retry", "force"]
"""What to do when another change came first: refuse, merge leaf by leaf, or replace it."""

Providers: TypeAlias = Mapping[str, Sequence[Mapping[str, Any]]]
"""What a configuration says, in the stack file's shape."""


Mine: TypeAlias = Callable[["State"], Mapping[str, "Providers | Absent | None"]]
"""Of the state at the expected revision: what each configuration is to say, `None` where that stays."""


class Absent:
    """The type of `ABSENT`."""

    def __repr__(self) -> str:
        return "ABSENT"

    def __bool__(self) -> bool:
        return False


ABSENT: Final = Absent()
"""Stands where there is no value, or no configuration of that name."""


@frozen
class FieldDiff:
    """One leaf of one provider that differs. What is not there is `ABSENT`; secrets are redacted."""

    provider: str
    path: str
    before: object
    after: object


@frozen
class FieldConflict:
    """One leaf that somebody else changed meanwhile: what it was, what they made it, what you say.

    `clashes` where you change it too, and otherwise. What is not there is `ABSENT`. `revision`,
    `actor`, `at` (UTC, ISO 8601), `action` and `subject` are those of their newest change of it.
    """

    configuration: str
    provider: str
    path: str
    before: object
    theirs: object
    mine: object
    clashes: bool
    revision: int = 0
    actor: str = ""
    at: str = ""
    action: str = ""
    subject: str = ""


@frozen
class Expected:
    """The head that a change was made for, if any, and what to do when another one came first."""

    revision: int | None = None
    on_conflict: OnConflict = field(default="refuse")

    @on_conflict.validator
    def _check(self, _attribute: object, value: object) -> None:
        known = get_args(OnConflict)
        if value not in known:
            raise InvalidConfig(f"on_conflict is one of {', '.join(known)}, not {value!r}")

    def is_past(self, head: Revision) -> bool:
        """Whether another change came first."""
        return self.revision is not None and self.revision != head.number

    def base(self, store: Store, head: Revision, mine: Mine) -> State | None:
        """What to merge with: the state at the expected revision, or `None` where nothing is to be
        merged. Raises `Conflict` where the change is to be refused, with what is `mine` in it.
        """
        if self.on_conflict == "force" or not self.is_past(head):
            return None
        if self.on_conflict == "refuse":
            raise self.conflict(store, head, mine)
        try:
            return store.read(self.revision).state
        except (UnknownName, RevisionLost) as error:
            raise self.conflict(store, head, mine) from error

    def merged(
        self, store: Store, head: Revision, base: State | None, name: str, mine: Providers | Absent
    ) -> Providers | Absent:
        """What a configuration becomes. Raises `Conflict` where the two sides clash."""
        if base is None:
            return mine
        merge = merge_three(_says(base, name), _says(head.state, name), mine)
        if merge.clashes or (merge.providers is ABSENT and mine is not ABSENT):
            raise self.conflict(store, head, {name: mine})
        return merge.providers

    def conflict(
        self,
        store: Store,
        head: Revision,
        mine: Mine | Mapping[str, Providers | Absent | None],
        *,
        mergeable: bool = True,
    ) -> Conflict:
        """The error that says who changed what since, against what is mine."""
        return conflict_of(store, self.revision or 0, head.number, mine, mergeable=mergeable)


@frozen
class Merged:
    """What two sides come to. Where they clash, at `clashes`, `providers` has what is mine."""

    providers: Providers | Absent = field(repr=False)
    clashes: tuple[tuple[str, Path], ...] = ()
    """The provider and the path of each clash; an empty path is the whole provider."""


def merge_three(base: Providers | Absent, theirs: Providers | Absent, mine: Providers | Absent) -> Merged:
    """Three-way, leaf by leaf: what only one side changed is taken, a change that both made too.

    >>> def says(**config):
    ...     return {"inference": [{"provider_id": "one", "provider_type": "t", "config": config}]}
    >>> both = merge_three(says(url="a", threads=1), says(url="b", threads=1), says(url="a", threads=2))
    >>> both.providers["inference"][0]["config"], both.clashes
    ({'url': 'b', 'threads': 2}, ())
    >>> merge_three(says(url="a"), says(url="b"), says(url="c")).clashes
    (('inference/one', ('url',)),)
    """
    clashes: list[Path] = []
    result = _merged(_nested(base), _nested(theirs), _nested(mine), (), clashes)
    told = tuple((_provider(path), path[1:]) for path in clashes)
    return Merged(ABSENT if result is ABSENT else _unnested(result, mine, theirs), told)


def differences(before: Providers | Absent, after: Providers | Absent) -> tuple[FieldDiff, ...]:
    """Every leaf that differs, with values as they may be shown.

    >>> one = {"inference": [{"provider_id": "one", "config": {"url": "a", "n": 1}}]}
    >>> two = {"inference": [{"provider_id": "one", "config": {"url": "b", "n": 1}}]}
    >>> differences(one, two)
    (FieldDiff(provider='inference/one', path='url', before='a', after='b'),)
    """
    return tuple(
        FieldDiff(_provider(path), dotted(path[1:]), _told(old, path), _told(new, path))
        for path, old, new in _leaf_changes(_nested(before), _nested(after), ())
    )


def field_conflicts(
    before: Revision, after: Iterable[Revision], name: str, mine: Providers | Absent
) -> tuple[FieldConflict, ...]:
    """Every leaf of a configuration that changed since a revision, in the course of the others,
    against what is mine.
    """
    base = theirs = providers_of(before, name)
    last: dict[Path, Revision] = {}
    for revision in after:
        now = providers_of(revision, name)
        changes = _leaf_changes(_nested(theirs), _nested(now), ())
        last.update({path: revision for path, _, _ in changes})
        theirs = now
    clashes: list[Path] = []
    says = _nested(mine)
    _merged(_nested(base), _nested(theirs), says, (), clashes)
    found = []
    for path, old, new in _leaf_changes(_nested(base), _nested(theirs), ()):
        told = [_told(each, path) for each in (old, new, value_at(says, path, ABSENT))]
        clash = any(_within(path, each) for each in clashes)
        where = (name, _provider(path), dotted(path[1:]))
        found.append(_by(FieldConflict(*where, told[0], told[1], told[2], clash), _whose(path, last)))
    return tuple(found)


def providers_of(revision: Revision, name: str) -> Providers | Absent:
    """What a configuration says at a revision; `ABSENT` where it is not registered."""
    return _says(revision.state, name)


def _says(state: State, name: str) -> Providers | Absent:
    found = state.configurations.get(name)
    return ABSENT if found is None else found.providers


def conflict_of(
    store: Store,
    expected: int,
    head: int,
    mine: Mine | Mapping[str, Providers | Absent | None],
    *,
    mergeable: bool = True,
) -> Conflict:
    """The error for a change that expected another head: who changed what since, against what is
    mine: what each configuration is to say, `None` where it is to stay as it was.
    """
    if expected > head:
        return Conflict(expected, head)
    try:
        before = store.read(expected)
    except (UnknownName, RevisionLost) as error:
        return Conflict(expected, head, problem=str(error), mergeable=mergeable)
    after = [revision for revision in store.follow(expected) if not revision.lost]
    wanted = mine(before.state) if callable(mine) else mine
    found = [
        conflict
        for name, says in wanted.items()
        for conflict in field_conflicts(
            before, after, name, providers_of(before, name) if says is None else says
        )
    ]
    since = [revision.summary for revision in after]
    return Conflict(expected, head, found, since, problem=_problem(found, list(wanted)), mergeable=mergeable)


def _problem(found: Sequence[FieldConflict], names: Sequence[str]) -> str:
    """In a few words: what others changed meanwhile."""
    clashing = sum(each.clashes for each in found)
    touched = sorted({each.configuration for each in found}) or names
    where = f"`{touched[0]}`" if len(touched) == 1 else f"{len(touched)} configurations"
    if clashing:
        return f"{_fields(clashing)} of {where} changed meanwhile to something else than yours"
    if found:
        return f"{_fields(len(found))} of {where} changed meanwhile, none that you change"
    return f"{where} is as it was" if len(touched) == 1 else ""


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def same(one: object, other: object) -> bool:
    """Whether two values are one in JSON: `True` is not 1, and `nan` is itself.

    >>> same({"a": 1, "b": 2}, {"b": 2, "a": 1}), same(True, 1), same(None, ABSENT)
    (True, False, False)
    """
    if one is ABSENT or other is ABSENT:
        return one is other
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _merged(base: Any, theirs: Any, mine: Any, path: Path, clashes: list[Path]) -> Any:
    if same(theirs, mine) or same(base, theirs):
        return mine
    if same(base, mine):
        return theirs
    if not all(each is ABSENT or isinstance(each, Mapping) for each in (base, theirs, mine)):
        clashes.append(path)
        return mine
    low, left, right = ({} if each is ABSENT else each for each in (base, theirs, mine))
    result = {}
    for key in {**right, **left}:
        parts = (low.get(key, ABSENT), left.get(key, ABSENT), right.get(key, ABSENT))
        value = _merged(*parts, (*path, key), clashes)
        if value is not ABSENT:
            result[key] = value
    gone = theirs is ABSENT or mine is ABSENT
    return ABSENT if gone and not result else result


def _leaf_changes(before: Any, after: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    if same(before, after):
        return
    sides = [each for each in (before, after) if each is not ABSENT]
    if all(isinstance(each, Mapping) for each in sides) and any(sides):
        old, new = ({} if each is ABSENT else each for each in (before, after))
        for key in {**old, **new}:
            yield from _leaf_changes(old.get(key, ABSENT), new.get(key, ABSENT), (*path, key))
    else:
        yield path, before, after


def _nested(providers: Providers | Absent) -> Any:
    if isinstance(providers, Absent):
        return ABSENT
    return {
        f"{api}/{entry['provider_id']}": entry["config"]
        for api, listed in providers.items()
        for entry in listed
    }


def _unnested(configs: Mapping[str, Any], *sides: Providers | Absent) -> Providers:
    types = {
        f"{api}/{entry['provider_id']}": entry.get("provider_type", "")
        for side in reversed(sides)
        if not isinstance(side, Absent)
        for api, listed in side.items()
        for entry in listed
    }
    providers: dict[str, list[Mapping[str, Any]]] = {}
    for key, config in configs.items():
        api, provider_id = key.split("/", 1)
        entry = {"provider_id": provider_id, "provider_type": types[key], "config": config}
        providers.setdefault(api, []).append(entry)
    return providers


def _within(one: Path, other: Path) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _whose(path: Path, last: Mapping[Path, Revision]) -> Revision | None:
    """The newest revision that changed a leaf, or something at, above or below it."""
    found = [revision for other, revision in last.items() if _within(path, other)]
    return max(found, key=lambda revision: revision.number, default=None)


def _by(fact: FieldConflict, whose: Revision | None) -> FieldConflict:
    if whose is None:
        return fact
    return evolve(
        fact,
        revision=whose.number,
        actor=whose.actor,
        at=whose.at,
        action=whose.action,
        subject=whose.subject,
    )


def _provider(path: Path) -> str:
    return str(path[0]) if path else ""


def _told(value: object, path: Path) -> object:
    if value is ABSENT:
        return ABSENT
    named = [str(step) for step in path[1:] if isinstance(step, str)]
    return shown(value, *named)
