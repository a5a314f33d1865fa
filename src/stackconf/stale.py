"""Whether a plan is still what would be planned now, and if not, everything that moved."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from stackconf.errors import StalePlan, StoreError, UnknownName
from stackconf.plan import mark, place_of

if TYPE_CHECKING:
    from stackconf.hardware.facts import Accelerator, Hardware
    from stackconf.plan import AppliedRecord, Digest, Plan, ProviderChange
    from stackconf.store.base import Store

_TOLD = 3
"""How many revisions, facts or fields are named; of more there is a count."""


def refuse_stale(given: Plan, now: Plan, store: Store, digest: Digest) -> None:
    """Raise `StalePlan` that names all that moved since `given` was made, unless nothing did."""
    inputs = [*_inputs(given, now, store)]
    touched = [*_applied(given, store.applied(), digest)]
    moved = [*inputs, *_by_attempt(touched, store)]
    if not inputs:  # otherwise what the providers would get moved because of them
        moved += _targets(given, now, touched)
    if not moved and [*map(_act, given.changes)] != [*map(_act, now.changes)]:
        moved = ["the order or the cost of its changes is another (a plugin changed), or it was edited"]
    if moved:
        raise StalePlan(moved)


def _inputs(given: Plan, now: Plan, store: Store) -> Iterator[str]:
    if given.base_revision != now.base_revision:
        by = _by_whom(given.base_revision, now.base_revision, store)
        yield f"the revision moved from {given.base_revision} to {now.base_revision}{by}"
    if given.stack_digest != now.stack_digest:
        yield "the stack file changed"
    if given.hardware_fingerprint != now.hardware_fingerprint:
        yield f"the hardware changed{_facts(given.hardware, now.hardware)}"


def _by_whom(since: int, now: int, store: Store) -> str:
    """Who did what in the revisions since, newest last."""
    steps = []
    try:
        for number in range(max(since, now - _TOLD) + 1, now + 1):
            revision = store.read(number)
            subject = f" `{revision.subject}`" if revision.subject else ""
            steps.append(f"{revision.actor}: {revision.action}{subject}")
    except (StoreError, UnknownName):  # it is only for the message
        return ""
    if not steps:
        return ""
    before = now - since - len(steps)
    more = f"{before} before, then " if before else ""
    return f" ({more}{', '.join(steps)})"


def _facts(before: Hardware | None, now: Hardware | None) -> str:
    """Which facts differ, as far as the plan holds them: first the cards that are gone or new."""
    if before is None or now is None:
        return ""
    from stackconf.hardware.codec import to_dict
    from stackconf.hardware.discovery import static

    moved = [*_cards(before, now)]
    old, new = to_dict(static(before)), to_dict(static(now))
    if moved:
        # What follows from it: that others lost a peer, and that there is a problem.
        for told in (old, new):
            del told["accelerators"], told["problems"]
    moved += _differing(old, new, "")
    return f" ({_listed(moved)})" if moved else ""


def _cards(before: Hardware, now: Hardware) -> Iterator[str]:
    """The cards that only one of the two has, and what the driver says about it."""
    ours, theirs = (
        {card.uuid or card.pci_bus_id or f"{card.vendor} {card.index}": card for card in each.accelerators}
        for each in (before, now)
    )
    gone = [key for key in ours if key not in theirs]
    why = [str(problem) for problem in now.problems if problem.fact == "accelerators"] if gone else []
    silent = {(card.vendor, card.index) for card in theirs.values() if card.uuid is None}
    if len(gone) >= _TOLD:
        yield f"{len(gone)} of {len(ours)} cards are gone"
    for key in gone if len(gone) < _TOLD else ():
        there = (ours[key].vendor, ours[key].index) in silent
        yield f"{_card(ours[key], key)} {'does not answer any more' if there else 'is gone'}"
    if why:
        yield why[0]
    for key, card in theirs.items():
        if key not in ours and card.uuid is not None:
            yield f"{_card(card, key)} is new"


def _card(card: Accelerator, key: str) -> str:
    number = "" if card.index is None else f"{card.index}: "
    return f"card {number}{card.name or card.vendor} {key}"


def _differing(before: Any, now: Any, path: str) -> Iterator[str]:
    if before == now:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from _differing(before.get(key), now.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(now, list) and _are_mappings(*before, *now):
        if len(before) != len(now):
            yield f"{path}: {len(before)} -> {len(now)}"
            return
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differing(old, new, f"{path}[{number}]")
    else:
        yield f"{path}: {_told(before)} -> {_told(now)}"


def _are_mappings(*items: Any) -> bool:
    return all(isinstance(each, Mapping) for each in items)


def _told(value: Any) -> str:
    if value is None:
        return "unknown"
    text = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 (a short line)


def _applied(given: Plan, applied: Mapping[str, AppliedRecord], digest: Digest) -> Iterator[str]:
    """The providers of the plan that have something else by now."""
    for key, changes in _by_key(given).items():
        record = applied.get(place_of(changes[0].provider, applied))
        base = "" if record is None else mark(record.provider, record.snapshot, digest)
        if base != changes[0].base:
            yield key


def _by_attempt(touched: Sequence[str], store: Store) -> Iterator[str]:
    """What is applied to whom by now, with the attempt that did so and whose that was."""
    try:
        last = store.status() if touched else {}
        actors = {each.number: each.actor for each in store.attempts()} if touched else {}
    except StoreError:  # it is only for the message
        last, actors = {}, {}
    groups: dict[str, list[str]] = {}
    for key in touched:
        status = last.get(key)
        who = ""
        if status is not None and status.state == "applied" and status.attempt in actors:
            who = f" (attempt {status.attempt} by {actors[status.attempt]})"
        groups.setdefault(who, []).append(key)
    return (f"what is applied to {_listed(keys)} changed{who}" for who, keys in groups.items())


def _targets(given: Plan, now: Plan, touched: Collection[str]) -> Iterator[str]:
    """The providers that would get something else than the plan says, but those touched since."""
    ours, theirs = _by_key(given), _by_key(now)
    for key, changes in ours.items():
        if key not in theirs:
            if key not in touched:
                yield f"{key} would not change any more"
        elif changes[-1].target != theirs[key][-1].target:
            yield f"{key} would get something else: {_why(changes[-1], theirs[key][-1])}"
    more = [key for key in theirs if key not in ours]
    if more:
        yield f"{_listed(more)} would change too (the environment, a plugin or what is applied changed)"


def _why(before: ProviderChange, after: ProviderChange) -> str:
    shown, now = ({each.path: each.after for each in change.fields} for change in (before, after))
    paths = [path for path in {**shown, **now} if _differs(shown, now, path)]
    if paths:
        return f"{_listed([f'`{path}`' for path in paths])} changed (the environment or a plugin)"
    if before.kind == after.kind == "change":
        return "a secret changed"
    return "a secret, or a default of its class, changed"


def _differs(before: Mapping[str, object], now: Mapping[str, object], path: str) -> bool:
    return (path in before) != (path in now) or _plainly(before.get(path)) != _plainly(now.get(path))


def _act(change: ProviderChange) -> tuple[object, ...]:
    """What a change does and shows. Where a value is from may be said anew."""
    shown = [(each.path, _plainly(each.before), _plainly(each.after)) for each in change.fields]
    return (change.provider, change.kind, change.update, change.target, change.base, shown)


def _plainly(value: object) -> str:
    """A value to compare by: `nan` is itself, and `True` is not 1."""
    import json

    return json.dumps(value, sort_keys=True, default=str)


def _by_key(plan: Plan) -> dict[str, list[ProviderChange]]:
    """The changes of each provider: one, or leaving as the old type and joining as the new one."""
    found: dict[str, list[ProviderChange]] = {}
    for change in plan.changes:
        found.setdefault(change.provider.key, []).append(change)
    return found


def _listed(items: list[str]) -> str:
    named = ", ".join(islice(items, _TOLD))
    return f"{named} and {len(items) - _TOLD} more" if len(items) > _TOLD else named
