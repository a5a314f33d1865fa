"""What providers take of the accelerators' memory by their own fields, summed up for each card.

Whoever set the values: a fraction that fits alone (`gpu_memory_utilization: 0.92`) does not fit twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from attrs import frozen

from stackconf.errors import HookError
from stackconf.hardware.shares import SHARED_LIMIT, Unit, tenant_of, unit_memory, units_text
from stackconf.resolve.layers import dotted, value_at
from stackconf.resolve.origins import Origins
from stackconf.types import Issue

if TYPE_CHECKING:
    from stackconf.hardware.facts import Hardware
    from stackconf.hardware.shares import Share
    from stackconf.resolve.resolve import Resolved
    from stackconf.stackfile.model import StackFile

_TOLERANCE = 1e-9


@frozen
class Claim:
    """What one field of a provider takes of one unit: a fraction of the whole unit's memory."""

    provider: str
    unit: Unit
    share: float
    path: str
    source: str
    """Where the value is from, as `explain` says it."""
    flow: str = ""
    """Of the providers of one flow only the one that claims most counts: they run one after another."""

    @property
    def tenant(self) -> tuple[str, str]:
        """Who counts when claims are summed up: a provider, or its flow."""
        return tenant_of(self.provider, {self.provider: self.flow})


def claims(
    resolved: Iterable[Resolved],
    hardware: Hardware,
    shares: Mapping[str, Share],
    stack: StackFile | None = None,
) -> list[Claim]:
    """The claims of all providers. One that has no share uses every visible card, unless its type says
    that it uses none of this machine's. Amounts in bytes of a card whose memory is unknown are no
    claim that could be summed.
    """
    found: list[Claim] = []
    everything: Mapping[Unit, float] | None = None
    for each in resolved:
        plan = each.plan
        if plan is None or not plan.claims or each.config is None:
            continue
        share = shares.get(each.provider.key)
        if share is None and _is_elsewhere(each):
            continue
        if share is None and everything is None:
            everything = _every_unit(hardware)
        found += _of(each, share.units if share is not None else everything or {}, hardware, stack)
    return found


def claim_issues(
    found: Iterable[Claim],
    hardware: Hardware,
    shares: Mapping[str, Share] | None = None,
    flows: Mapping[str, str] | None = None,
) -> list[Issue]:
    """An issue for the cards of which more is claimed than there is, or more than lets several start.

    Each names the claimants, and where their values are from. A provider without such a field takes
    what it was given; as it may do with less, too much together with that is a warning.
    """
    by_unit: dict[Unit, list[Claim]] = {}
    for claim in found:
        by_unit.setdefault(claim.unit, []).append(claim)
    told: dict[_Sum, list[Unit]] = {}
    claimants = {claim.provider for listed in by_unit.values() for claim in listed}
    for unit, listed in by_unit.items():
        given = {
            key: share.units[unit]
            for key, share in (shares or {}).items()
            if unit in share.units and key not in claimants
        }
        takes = [*_claimed(listed), *_given(given, flows or {})]
        claimed = sum(each.part for each in _counting([each for each in takes if each.claimed]))
        counting = _counting(takes, claimed_first=claimed > 1 + _TOLERANCE)
        much = sum(each.part for each in counting)
        several = len(counting) > 1
        tight = several and much > SHARED_LIMIT + _TOLERANCE and _beyond(listed, shares or {})
        if claimed > 1 + _TOLERANCE or tight:
            about = _Sum(", ".join(each.text for each in counting), claimed, much, several=several)
            told.setdefault(about, []).append(unit)
    return [_issue(hardware, units, about) for about, units in told.items()]


def _beyond(listed: Iterable[Claim], shares: Mapping[str, Share]) -> bool:
    """Whether one of them claims more of a unit than it was given: what is given fits together, also
    beside a guest, with whom more than `SHARED_LIMIT` is given away.
    """
    claimed: dict[tuple[str, Unit], float] = {}
    for claim in listed:
        at = (claim.provider, claim.unit)
        claimed[at] = claimed.get(at, 0.0) + claim.share
    given = {(key, unit): part for key, share in shares.items() for unit, part in share.units.items()}
    return any(part > given.get(at, 0.0) + _TOLERANCE for at, part in claimed.items())


@frozen
class _Take:
    """What one provider takes of a unit: what it claims, or what it is given where it claims nothing."""

    tenant: tuple[str, str]
    part: float
    text: str
    claimed: bool


def _claimed(listed: Iterable[Claim]) -> Iterator[_Take]:
    by_provider: dict[str, list[Claim]] = {}
    for claim in listed:
        by_provider.setdefault(claim.provider, []).append(claim)
    for of in by_provider.values():
        text = ", ".join(f"{each.provider} {each.share:.4g} (`{each.path}`, {each.source})" for each in of)
        yield _Take(of[0].tenant, sum(each.share for each in of), text, claimed=True)


def _given(given: Mapping[str, float], flows: Mapping[str, str]) -> Iterator[_Take]:
    for key, part in given.items():
        yield _Take(tenant_of(key, flows), part, f"{key} {part:.4g} (given to it)", claimed=False)


def _counting(takes: Iterable[_Take], *, claimed_first: bool = False) -> list[_Take]:
    """Of each flow only the provider that takes most: they run one after another."""
    most: dict[tuple[str, str], _Take] = {}
    for take in takes:
        other = most.get(take.tenant, take)
        most[take.tenant] = max(other, take, key=lambda each: (claimed_first and each.claimed, each.part))
    return list(most.values())


@frozen
class _Sum:
    """What is claimed of a unit, and with what those are given who claim nothing."""

    text: str
    claimed: float
    much: float
    several: bool


def _issue(hardware: Hardware, units: list[Unit], about: _Sum) -> Issue:
    over = about.claimed > 1 + _TOLERANCE
    where = "of the memory of each is" if len(units) > 1 else "of its memory is"
    problem = "" if over else f"; above {SHARED_LIMIT} the last one finds too little free to start"
    limit = SHARED_LIMIT if about.several else 1
    move = ", or give them different cards under `stackconf: placement:`" if about.several else ""
    return Issue(
        f"{units_text(hardware, units)}: {about.much:.4g} {where} claimed: {about.text}{problem}",
        level="error" if over else "warning",
        code="over-claimed",
        hint=f"set values that add up to at most {limit}{move}",
    )


def _is_elsewhere(resolved: Resolved) -> bool:
    owned, entry = resolved.owned, resolved.entry
    if owned is None or entry is None or not callable(owned.kind.accelerators):
        return False
    try:
        return not owned.accelerators(entry.key, entry.config)
    except HookError:
        return False


def _every_unit(hardware: Hardware) -> Mapping[Unit, float]:
    from stackconf.hardware.shares import shared_out

    return shared_out(hardware, [""])[""].units


def _of(
    resolved: Resolved, units: Mapping[Unit, float], hardware: Hardware, stack: StackFile | None
) -> Iterator[Claim]:
    assert resolved.plan is not None  # noqa: S101 (asked before)
    flow = resolved.owned.kind.flow if resolved.owned is not None else ""
    told: Origins | None = None
    used = sorted(units, key=lambda unit: (-units[unit], unit[0], unit[1] or 0))
    count = getattr(resolved.config, "stackconf_accelerators", None)
    if isinstance(count, int):
        used = used[:count]
    for path, kind in resolved.plan.claims:
        amount = _amount(resolved.config, path)
        if amount is None:
            continue
        told = told or Origins(resolved, stack)
        source = told.of(path, value_at(told.shown, path)).source
        for unit in used:
            total = 1 if kind == "accelerator_memory_fraction" else unit_memory(hardware, unit)
            if total:
                yield Claim(resolved.provider.key, unit, amount / total, dotted(path), source, flow)


def _amount(config: object, path: tuple[str, ...]) -> float | None:
    here = config
    for name in path:
        here = getattr(here, name, None)
    return None if isinstance(here, bool) or not isinstance(here, (int, float)) else here
