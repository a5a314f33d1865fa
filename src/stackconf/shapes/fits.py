"""Which machine a configuration is for, whether one is, and which was taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import asdict

from stackconf.shapes.reading import Given, Misshapen, choice, number, text, tuple_of, whole

if TYPE_CHECKING:
    from stackconf.choosing import Chosen
    from stackconf.fitting import Cards, Fit, Requirement
    from stackconf.shipped import ShippedProvenance

_VERSION = 2
"""Numbers in a compute capability: major and minor."""


def requirement_data(requirement: Requirement) -> dict[str, Any]:
    """The machine that a configuration is for, in words and in figures."""
    return {"text": str(requirement), **asdict(requirement)}


def requirement_from(data: object) -> Requirement:
    """What `requirement_data` wrote."""
    from stackconf.fitting import Requirement

    given = Given(data)
    return Requirement(
        given.maybe("cards", _cards), given.maybe("cores", number), given.maybe("memory_bytes", whole)
    )


def _cards(data: object) -> Cards:
    from stackconf.fitting import Cards

    given = Given(data)
    return Cards(
        given.whole("count"),
        given.texts("slugs"),
        given.text("vendor"),
        given.maybe("memory_bytes", whole),
        given.maybe("compute_capability", _version),
    )


def _version(data: object) -> tuple[int, int]:
    found = tuple_of(whole)(data)
    if len(found) != _VERSION:
        raise Misshapen("expected two numbers")
    return found[0], found[1]


def provenance_data(provenance: ShippedProvenance) -> dict[str, Any]:
    """Where the values of a shipped configuration are from."""
    return asdict(provenance)


def provenance_from(data: object) -> ShippedProvenance:
    """What `provenance_data` wrote."""
    from stackconf.shipped import ShippedProvenance

    given = Given(data)
    return ShippedProvenance(given.text("source"), given.flag("verified"), given.text("note"))


def fit_data(fit: Fit) -> dict[str, Any]:
    """Whether a machine is one that a configuration is for."""
    return {"text": str(fit), **asdict(fit)}


def fit_from(data: object) -> Fit:
    """What `fit_data` wrote."""
    from stackconf.fitting import Fit, Verdict

    given = Given(data)
    verdict: Verdict = given.one("verdict", choice(Verdict))
    return Fit(verdict, given.text("why"), given.texts("missing"), given.text("share"))


def chosen_data(chosen: Chosen) -> dict[str, Any]:
    """The configuration that was taken as the best, and why."""
    return {
        "name": chosen.name,
        "revision": chosen.revision,
        "hardware": requirement_data(chosen.requirement),
        "fit": fit_data(chosen.fit),
        "passed_over": list(chosen.passed_over),
    }


def chosen_from(data: object) -> Chosen:
    """What `chosen_data` wrote."""
    from stackconf.choosing import Chosen

    given = Given(data)
    return Chosen(
        given.text("name"),
        given.one("fit", fit_from),
        given.one("hardware", requirement_from),
        given.whole("revision"),
        given.each("passed_over", text),
    )
