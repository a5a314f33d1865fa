"""Configurations as a listing has them, and which of the shipped ones a machine is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from stackconf import fitting
from stackconf.errors import InvalidConfig
from stackconf.types import Issue

if TYPE_CHECKING:
    from stackconf.fitting import Fit, Requirement
    from stackconf.hardware.facts import Hardware
    from stackconf.shipped import ShippedProvenance

_NEAREST = 3
"""As many are told of where none fits."""


@frozen
class Listed:
    """One configuration in a listing. `assigned` is its place in the overlay, from 1; 0: it is not."""

    name: str
    source: str
    providers: tuple[str, ...]
    assigned: int
    revision: int
    description: str = ""
    requirement: Requirement | None = None
    """The machine that it is for, where it says so."""
    provenance: ShippedProvenance | None = None
    fit: Fit | None = None
    """Whether this machine is one; where that was asked, and it says for which machine it is."""
    best: bool = False
    """Of those that fit and set the same providers, it is the one that asks for most."""

    @property
    def fits(self) -> bool:
        """Whether it is known that this machine is one that it is for."""
        return self.fit is not None and self.fit.verdict == "fits"


@frozen
class Chosen:
    """What `assign_best` took: why, and what it was preferred to."""

    name: str
    fit: Fit
    requirement: Requirement
    revision: int
    passed_over: tuple[str, ...]
    """Others that fit as well, next best first."""


def compared(
    listed: Iterable[Listed],
    hardware: Hardware,
    keys: Collection[str],
    hardware_for: Callable[[Collection[str]], Hardware],
) -> list[Listed]:
    """With what a machine is to each; of a machine that is shared out, what `hardware_for` says that its
    providers have. One for a provider that is not among the keys is not best.
    """

    def found_for(each: Listed, wanted: Requirement) -> Fit:
        own = hardware_for(each.providers)
        fit = fitting.fit(wanted, own)
        return fit if own is hardware else evolve(fit, share=_share_text(own, hardware))

    found = [
        each if each.requirement is None else evolve(each, fit=found_for(each, each.requirement))
        for each in listed
    ]
    best: dict[frozenset[str], Listed] = {}
    for each in found:
        if each.fits and {*keys}.issuperset(each.providers):
            same = frozenset(each.providers)
            best[same] = max(best.get(same, each), each, key=_demand_of)
    names = {each.name for each in best.values()}
    return [evolve(each, best=True) if each.name in names else each for each in found]


def choose(listed: Iterable[Listed], keys: Sequence[str]) -> Chosen:
    """The best of those that set these providers; its `revision` is still 0. Raises `InvalidConfig` when
    none fits, with what the nearest lack, and when those that fit are for different providers.
    """
    candidates = [each for each in listed if each.fit is not None and {*keys} <= {*each.providers}]
    best = [each for each in candidates if each.best]
    if len(best) != 1:
        raise _no_best(candidates, best, keys)
    (chosen,) = best
    others = sorted((each for each in candidates if each.fits), key=_demand_of, reverse=True)
    if chosen.fit is None or chosen.requirement is None:
        raise AssertionError("unreachable")
    passed_over = tuple(each.name for each in others if each.name != chosen.name)
    return Chosen(chosen.name, chosen.fit, chosen.requirement, 0, passed_over)


def _share_text(own: Hardware, hardware: Hardware) -> str:
    cards, there = own.visible_accelerators, len(hardware.visible_accelerators)
    parts = sorted({card.share for card in cards if card.share < 1})
    part = f" and {parts[0]:.3g} of each" if parts else ""
    return f"{len(cards)} of {there} {'card' if there == 1 else 'cards'}{part}"


def _demand_of(listed: Listed) -> tuple[tuple[int, int, int, float], str]:
    asked = listed.requirement
    return (fitting.demand(asked) if asked is not None else (0, 0, 0, 0.0)), listed.name


def _no_best(candidates: Sequence[Listed], best: Sequence[Listed], keys: Sequence[str]) -> InvalidConfig:
    """Why there is not one configuration to take."""
    if best:
        told = "; ".join(f"`{each.name}` for {', '.join(each.providers)}" for each in best)
        return InvalidConfig(f"several fit, for different providers: {told}; say which with --for PROVIDER")
    about = f" for {', '.join(keys)}" if keys else ""
    if not candidates:
        problem = f"no configuration{about} says for which machine it is"
        return InvalidConfig(f"{problem}; `stackconf configurations list` has what there is")
    if fits := [each for each in candidates if each.fits]:
        first = fits[0]
        problem = f"`{first.name}` fits the machine, and the stack lacks one of its providers"
        return InvalidConfig(f"{problem}: {', '.join(first.providers)}")
    nearest = sorted(candidates, key=_nearness_of)[:_NEAREST]
    issues = [Issue(f"`{each.name}`: {each.fit}", hint=f"it is for {each.requirement}") for each in nearest]
    return InvalidConfig(f"no configuration{about} fits this machine; the nearest are", tuple(issues))


def _nearness_of(listed: Listed) -> tuple[tuple[int, int], float, str]:
    """The nearest first; of those alike, the one that asks for least."""
    near = fitting.nearness(listed.fit) if listed.fit is not None else (9, 9)
    (_, cards, *_), name = _demand_of(listed)
    return near, cards, name
