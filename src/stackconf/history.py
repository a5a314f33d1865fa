"""Looking back: which revisions and attempts there were, and what differs between two revisions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from attrs import evolve, frozen

from stackconf.conflicts import ABSENT, FieldDiff, differences, providers_of
from stackconf.errors import UnknownName
from stackconf.plan import AppliedRecord, Digest, ProviderChange, make_plan, snapshot
from stackconf.resolve.references import shown
from stackconf.store.base import Attempt, Configuration, Revision, RevisionSummary, State, restored_by

if TYPE_CHECKING:
    from stackconf.resolve.resolve import Resolved
    from stackconf.stackfile.model import StackFile
    from stackconf.store.base import Store

ConfigurationChange: TypeAlias = Literal["added", "removed", "changed", "same"]
AssignmentChange: TypeAlias = Literal["assigned", "unassigned", "moved", "same"]

_LONGEST = 18
_RELATIVE = re.compile(r"(?:head)?[-~](?P<back>\d{1,9})")


@frozen
class AttemptSummary:
    """One apply, as history lists it. Times are UTC, ISO 8601.

    `state` is `applied`, `restored` (what was applied before is back), `pending`, `failed`, `begun` (it
    has not ended: it runs, or was killed) or `cut_off` (it was killed, and a later one took over).
    `provider` and `error` are those of the provider that failed or is pending. `seconds` is `None`
    where it has not ended, or the clock went back. `now` is the revision that counts after it, `None`
    where that is not known. `took_over` is the attempt that was cut off before it.
    """

    number: int
    revision: int
    state: str
    begun_at: str
    finished_at: str | None
    seconds: float | None
    actor: str
    provider: str = ""
    error: str = ""
    now: int | None = None
    took_over: int | None = None


@frozen
class History:
    """Revisions and attempts, newest first. `oldest` is the oldest revision kept.

    `applied` is the revision that counts after the last attempt, `None` where none is known.
    """

    revisions: tuple[RevisionSummary, ...]
    attempts: tuple[AttemptSummary, ...]
    oldest: int = 1
    applied: int | None = None


@frozen
class ConfigurationDiff:
    """What became of one configuration. `before` and `after` are its places in the overlay, from 1;
    0 where it was not assigned.
    """

    name: str
    kind: ConfigurationChange
    assignment: AssignmentChange
    before: int
    after: int
    fields: tuple[FieldDiff, ...] = ()


@frozen
class Difference:
    """What changed from one revision to another; false where nothing did.

    `effective` is what the providers would have otherwise, `None` where it was not asked for;
    `unresolved` are the providers that have no valid configuration under one of the two.
    """

    before: int
    after: int
    configurations: tuple[ConfigurationDiff, ...] = ()
    effective: tuple[ProviderChange, ...] | None = None
    unresolved: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.configurations or self.effective)


@frozen
class RolledBack:
    """What came of a rollback: the head revision, the one it restores, and whether it is new."""

    revision: int
    restores: int
    changed: bool


def number_of(store: Store, revision: int | str) -> int:
    """The number that is meant: a number, `head`, or so many before it: `head-1`, `-1`.

    Raises `UnknownName` when it is none of these, or goes back beyond the beginning.
    """
    text = str(revision).strip()
    if text.isdecimal() and len(text) <= _LONGEST:
        return int(text)
    if text == "head":
        return store.head()
    relative = _RELATIVE.fullmatch(text)
    if relative is None:
        raise UnknownName(f"no revision `{text}`; say a number, `head`, or `head-1` for the one before")
    head = store.head()
    number = head - int(relative["back"])
    if number < 0:
        raise UnknownName(f"no revision `{text}`: the head is {head}")
    return number


def read_history(store: Store, limit: int | None = None) -> History:
    """The newest revisions and attempts, at most `limit` of each."""
    attempts = list(summarised(store.attempts()))
    applied = next((each.now for each in attempts), None)
    return History(tuple(store.revisions(limit)), tuple(attempts[:limit]), store.oldest(), applied)


def summarised(attempts: Sequence[Attempt]) -> Iterator[AttemptSummary]:
    """Attempts, newest first, in few words."""
    now: int | None = None
    before: Attempt | None = None
    found = []
    for attempt in reversed(attempts):
        now = _counts_after(attempt, now)
        cut_off = before is not None and before.state == "cut_off"
        found.append(_summary(attempt, now, before.number if before and cut_off else None))
        before = attempt
    return reversed(found)


def shown_revision(revision: Revision) -> Revision:
    """A revision whose configurations hold nothing that may not be shown."""
    return evolve(revision, state=State(_shown(revision.state), revision.state.assigned))


def shown_configuration(configuration: Configuration) -> Configuration:
    """A configuration as it may be shown: references as they stand, any secret redacted."""
    return evolve(configuration, providers=cast("Any", shown(configuration.providers)))


def difference(before: Revision, after: Revision) -> Difference:
    """What changed in what is registered and assigned, by name, assigned ones first."""
    names = dict.fromkeys(
        (
            *after.state.assigned,
            *before.state.assigned,
            *sorted({**before.state.configurations, **after.state.configurations}),
        )
    )
    moved = _moved(before.state.assigned, after.state.assigned)
    found = [_configuration_diff(before, after, name, moved=name in moved) for name in names]
    differing = (each for each in found if (each.kind, each.assignment) != ("same", "same"))
    return Difference(before.number, after.number, tuple(differing))


def is_same(one: State, other: State) -> bool:
    """Whether two states say the same, whichever revisions brought it."""
    found = difference(Revision(0, "", "", "", "", one), Revision(0, "", "", "", "", other))
    return not found and one.configurations.keys() == other.configurations.keys()


def effective_difference(
    before: Revision,
    after: Revision,
    resolve: Callable[[State], Mapping[str, Resolved]],
    digest: Digest,
    stack: StackFile,
) -> tuple[tuple[ProviderChange, ...], tuple[str, ...]]:
    """What the providers would have otherwise under the second revision than under the first, and
    those of which it cannot be said. Both are resolved with the stack file and the machine of now.
    """
    old, new = resolve(before.state), resolve(after.state)
    both = [key for key in new if _is_valid(old[key]) and _is_valid(new[key])]
    made = make_plan(
        {key: new[key] for key in both},
        {key: AppliedRecord(old[key].provider, before.number, snapshot(old[key], digest)) for key in both},
        digest=digest,
        base_revision=before.number,
        stack=stack,
        hardware_fingerprint="",
    )
    return made.changes, tuple(key for key in new if key not in both)


def _is_valid(resolved: Resolved) -> bool:
    return resolved.config is not None and all(issue.level != "error" for issue in resolved.issues)


def _counts_after(attempt: Attempt, before: int | None) -> int | None:
    outcomes = attempt.report.get("outcomes", ())
    if attempt.state in {"begun", "cut_off"} or any(each["state"] == "unknown" for each in outcomes):
        return None
    if attempt.state == "failed" or all(each["kind"] == "restore" for each in outcomes):
        return before
    return attempt.revision


def _summary(attempt: Attempt, now: int | None, took_over: int | None) -> AttemptSummary:
    outcomes = attempt.report.get("outcomes", ())
    blamed = next(
        (each for state in ("failed", "unknown", "pending") for each in outcomes if each["state"] == state),
        None,
    )
    return AttemptSummary(
        attempt.number,
        attempt.revision,
        "restored" if outcomes and all(map(restored_by, outcomes)) else attempt.state,
        attempt.begun_at,
        attempt.finished_at,
        _seconds(attempt),
        attempt.actor,
        provider=blamed["provider"] if blamed else "",
        error=blamed["error"].removeprefix(f"{blamed['provider']}: ") if blamed else "",
        now=now,
        took_over=took_over,
    )


def _seconds(attempt: Attempt) -> float | None:
    if attempt.finished_at is None or attempt.state == "cut_off":
        return None
    took = datetime.fromisoformat(attempt.finished_at) - datetime.fromisoformat(attempt.begun_at)
    seconds = took.total_seconds()
    return seconds if seconds >= 0 else None


def _shown(state: State) -> dict[str, Configuration]:
    return {name: shown_configuration(each) for name, each in state.configurations.items()}


def _configuration_diff(before: Revision, after: Revision, name: str, *, moved: bool) -> ConfigurationDiff:
    old, new = providers_of(before, name), providers_of(after, name)
    fields = differences(old, new)
    kind: ConfigurationChange = "changed" if fields else "same"
    if old is ABSENT or new is ABSENT:
        kind = "same" if old is new else "added" if old is ABSENT else "removed"
    was, now = _place(before.state, name), _place(after.state, name)
    assignment: AssignmentChange = "moved" if moved else "same"
    if bool(was) != bool(now):
        assignment = "assigned" if now else "unassigned"
    return ConfigurationDiff(name, kind, assignment, was, now, fields)


def _place(state: State, name: str) -> int:
    return state.assigned.index(name) + 1 if name in state.assigned else 0


def _moved(before: Sequence[str], after: Sequence[str]) -> set[str]:
    """Of those assigned in both, the fewest that changed their place among each other."""
    old = [name for name in before if name in after]
    new = [name for name in after if name in before]
    stayed = SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
    kept = {name for block in stayed for name in old[block.a : block.a + block.size]}
    return set(old) - kept
