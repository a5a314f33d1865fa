"""Configurations: what they say, how they are listed, what came of registering one.

What a configuration says is in the stack file's shape, as it is registered: references as they
stand, any secret redacted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from stackconf.packing import spelled
from stackconf.shapes.fits import (
    fit_data,
    fit_from,
    provenance_data,
    provenance_from,
    requirement_data,
    requirement_from,
)
from stackconf.shapes.issues import issue_from, issues_data
from stackconf.shapes.plans import plan_data, plan_from
from stackconf.shapes.reading import Given, flag, text, tuple_of, whole

if TYPE_CHECKING:
    from stackconf.choosing import Listed
    from stackconf.configurations import Registered
    from stackconf.store.base import Configuration, State


def configuration_data(configuration: Configuration) -> dict[str, Any]:
    """A configuration with what it says. `problem` is why that cannot be read, if so."""
    return {
        "name": configuration.name,
        "source": configuration.source,
        "revision": configuration.revision,
        "providers": says_data(configuration.providers),
        "problem": configuration.problem or None,
    }


def configuration_from(data: object) -> Configuration:
    """What `configuration_data` wrote."""
    from stackconf.store.base import Configuration

    given = Given(data)
    return Configuration(
        given.text("name"),
        given.one("providers", says_from),
        given.text("source"),
        given.whole("revision"),
        given.some_text("problem"),
    )


def says_data(providers: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """What a configuration says of each provider."""
    from stackconf.resolve.references import shown

    return cast("dict[str, Any]", spelled(shown(providers)))


def says_from(data: object) -> dict[str, list[dict[str, Any]]]:
    """What `says_data` wrote: `{api: [{provider_id, provider_type, config}]}`."""
    given = Given({"providers": data}).named("providers", tuple_of(_entry))
    return {api: [*entries] for api, entries in given.items()}


def _entry(data: object) -> dict[str, Any]:
    given = Given(data)
    given.text("provider_id")
    given.one("config", Given)
    return dict(given.data)


def state_data(state: State) -> dict[str, Any]:
    """What is registered, and the names of what is assigned, low to high."""
    return {
        "assigned": list(state.assigned),
        "configurations": [configuration_data(each) for each in state.configurations.values()],
    }


def state_from(data: object) -> State:
    """What `state_data` wrote."""
    from stackconf.store.base import State

    given = Given(data)
    found = given.each("configurations", configuration_from)
    return State({each.name: each for each in found}, given.texts("assigned"))


def listed_data(listed: Listed) -> dict[str, Any]:
    """A configuration in a listing; `assigned` is its place in the overlay, `None` where it is not."""
    return {
        "name": listed.name,
        "state": "assigned" if listed.assigned else "available",
        "assigned": listed.assigned or None,
        "source": listed.source,
        "revision": listed.revision or None,
        "providers": list(listed.providers),
        "description": listed.description,
        "hardware": None if listed.requirement is None else requirement_data(listed.requirement),
        "provenance": None if listed.provenance is None else provenance_data(listed.provenance),
        "fit": None if listed.fit is None else fit_data(listed.fit),
        "best": listed.best,
    }


def listed_from(data: object) -> Listed:
    """What `listed_data` wrote."""
    from stackconf.choosing import Listed

    given = Given(data)
    return Listed(
        given.text("name"),
        given.text("source"),
        given.each("providers", text),
        given.maybe("assigned", whole) or 0,
        given.maybe("revision", whole) or 0,
        given.some_text("description"),
        given.maybe("hardware", requirement_from),
        given.maybe("provenance", provenance_from),
        given.maybe("fit", fit_from),
        given.maybe("best", flag) or False,
    )


def registered_data(registered: Registered, *, assigned: bool) -> dict[str, Any]:
    """What came of a registration, with the plan of now."""
    return {
        "name": registered.name,
        "revision": registered.revision,
        "assigned": assigned,
        "kept": says_data(registered.kept),
        "dropped": issues_data(registered.dropped),
        "warnings": issues_data(registered.warnings),
        "plan": plan_data(registered.plan),
    }


def registered_from(data: object) -> Registered:
    """What `registered_data` wrote; its plan is the one that was sent."""
    from stackconf.configurations import Registered

    given = Given(data)
    plan = given.one("plan", plan_from)
    return Registered(
        given.text("name"),
        given.whole("revision"),
        given.one("kept", says_from),
        given.each("dropped", issue_from),
        given.each("warnings", issue_from),
        lambda: plan,
    )
