"""`stackconf hardware --usage`: which provider of the stack has what of the accelerators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from stackconf.cli.machines import one_machine
from stackconf.cli.opening import client_of, opened, stack_of
from stackconf.cli.output import emit_json, out, show_issues
from stackconf.cli.picture import draw, write_svg
from stackconf.cli.waiting import waiting
from stackconf.hardware.picture import Use

if TYPE_CHECKING:
    from stackconf.cli.opening import Opened
    from stackconf.cli.options import Settings
    from stackconf.hardware.facts import Hardware
    from stackconf.hardware.shares import Share, Unit
    from stackconf.resolve.claims import Claim
    from stackconf.types import Issue

CODES = frozenset({"bad-placement", "no-share", "over-claimed"})
"""The issues that are about who has what."""


@frozen
class _Usage:
    hardware: Hardware
    shares: Mapping[str, Share]
    claimed: Mapping[tuple[str, Unit], float]
    issues: Sequence[Issue]


def show(settings: Settings, svg: str | None) -> int:
    """Draw the machine with its tenants, and say why each has what it has; 1 where it does not fit."""
    on = one_machine(settings)
    with opened(settings, on=on) as stack, waiting(settings, "resolving"):
        issues = [issue for issue in stack.issues if issue.code in CODES]
        usage = _Usage(stack.hardware, stack.shares, _claimed(_claims(stack)), issues)
    if settings.json:
        emit_json({**_data(usage), **({"hardware": on.data()} if on else {})})
    elif svg is not None:
        write_svg(settings, usage.hardware, svg, _uses(usage))
    else:
        if on:
            out(settings).line(f"hardware: {on}", "dim")
            out(settings).line()
        _draw(settings, usage)
    return int(show_issues(settings, issues))


def _claims(stack: Opened) -> Sequence[Claim]:
    client = client_of(stack)
    if client is None:
        return stack_of(stack).resolution.claims
    from stackconf.client import calls

    return client.do(calls.claims())


def _draw(settings: Settings, usage: _Usage) -> None:
    screen = out(settings)
    draw(screen, usage.hardware, _uses(usage))
    if not usage.shares:
        screen.paragraph("no provider of this stack says that it uses accelerators")
        return
    for key, share in usage.shares.items():
        screen.paragraph(f"{key}: {share.reason}", hang="  ")


def _claimed(found: Iterable[Claim]) -> dict[tuple[str, Unit], float]:
    claimed: dict[tuple[str, Unit], float] = {}
    for claim in found:
        at = (claim.provider, claim.unit)
        claimed[at] = claimed.get(at, 0.0) + claim.share
    return claimed


def _uses(usage: _Usage) -> list[Use]:
    """What a provider's own fields take, where they say so; otherwise what it is given."""
    units = {(key, unit): part for key, share in usage.shares.items() for unit, part in share.units.items()}
    claimants = {key for key, _ in usage.claimed}
    told = []
    for (key, unit), part in {**units, **usage.claimed}.items():
        if (key, unit) in usage.claimed:
            told.append(Use(unit[0], f"{key} takes {part * 100:.3g} %", part, unit[1]))
        elif key in claimants:
            told.append(Use(unit[0], f"{key} leaves it idle", 0.0, unit[1]))
        else:
            told.append(Use(unit[0], f"{key} {part * 100:.3g} %", part, unit[1]))
    return sorted(told, key=lambda use: (use.card, use.instance or 0, use.text))


def _data(usage: _Usage) -> dict[str, Any]:
    from stackconf.shapes.issues import issues_data

    keys = dict.fromkeys([*usage.shares, *(key for key, _ in usage.claimed)])
    return {
        "usage": [
            {
                "provider": key,
                "reason": usage.shares[key].reason if key in usage.shares else None,
                "cards": [_unit_data(usage, key, unit) for unit in _units_of(usage, key)],
            }
            for key in keys
        ],
        "issues": issues_data(usage.issues),
    }


def _units_of(usage: _Usage, key: str) -> list[Unit]:
    given = usage.shares[key].units if key in usage.shares else {}
    return list(dict.fromkeys([*given, *(unit for other, unit in usage.claimed if other == key)]))


def _unit_data(usage: _Usage, key: str, unit: Unit) -> dict[str, Any]:
    card = usage.hardware.accelerators[unit[0]]
    own = card if unit[1] is None else card.mig[unit[1]]
    return {
        "index": card.index,
        "uuid": own.uuid,
        "share": usage.shares[key].units.get(unit) if key in usage.shares else None,
        "claimed": usage.claimed.get((key, unit)),
    }
