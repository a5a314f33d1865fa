"""How an apply goes and went. Times are rounded to the millisecond."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from stackconf.shapes.reading import Given, choice, number
from stackconf.store.base import outcome_data

if TYPE_CHECKING:
    from stackconf.apply import Outcome, Progress, Report
    from stackconf.events import Event

__all__ = ["event_data", "event_from", "outcome_data", "outcome_from", "report_data", "report_from"]

_STATE = Literal["applied", "pending", "failed", "nothing"]
_EVENT = Literal["begin", "end", "report"]


def report_data(report: Report) -> dict[str, Any]:
    """How an apply went."""
    return {
        "state": report.state,
        "revision": report.revision,
        "attempt": report.attempt,
        "took_over": report.took_over,
        "outcomes": [outcome_data(outcome) for outcome in report.outcomes],
        "warnings": [*report.warnings],
    }


def report_from(data: object) -> Report:
    """What `report_data` wrote."""
    from stackconf.apply import Report

    given = Given(data)
    return Report(
        given.one("state", choice(_STATE)),
        given.each("outcomes", outcome_from),
        given.whole("revision"),
        given.whole("attempt"),
        given.whole("took_over"),
        given.texts("warnings"),
    )


def outcome_from(data: object) -> Outcome:
    """What `outcome_data` wrote."""
    from stackconf.apply import Outcome, State

    given = Given(data)
    return Outcome(
        given.text("provider"),
        given.text("kind"),
        given.one("state", choice(State)),
        given.text("detail"),
        given.text("error"),
        given.one("seconds", number),
    )


def event_data(event: Event) -> dict[str, Any]:
    """One event of an apply that runs: `event` is `begin` or `end` of a step, or `report`."""
    from stackconf.apply import Report

    if isinstance(event, Report):
        return {"event": "report", **report_data(event)}
    ended = event.seconds is not None
    data: dict[str, Any] = {
        "event": "end" if ended else "begin",
        "provider": event.provider,
        "step": event.step,
        "position": event.position,
        "total": event.total,
    }
    if event.seconds is not None:
        data["seconds"] = round(event.seconds, 3)
    return data


def event_from(data: object) -> Event:
    """What `event_data` wrote. An event that is an error is read by `error_from`."""
    kind = Given(data).one("event", choice(_EVENT))
    return report_from(data) if kind == "report" else _progress(Given(data), ended=kind == "end")


def _progress(given: Given, *, ended: bool) -> Progress:
    from stackconf.apply import Progress, StepName

    return Progress(
        given.text("provider"),
        given.one("step", choice(StepName)),
        given.one("seconds", number) if ended else None,
        given.whole("position"),
        given.whole("total"),
    )
