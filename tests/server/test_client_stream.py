"""How a client reads the stream of an apply: whole, told of a problem, and cut off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

import httpx
import pytest

from stackconf.apply import Progress, Report
from stackconf.client.http import Events
from stackconf.errors import ApplyBusy, StackconfError, Unreachable
from stackconf.shapes.errors import error_data
from stackconf.shapes.reports import event_data

if TYPE_CHECKING:
    from stackconf.events import Event

URL = "http://127.0.0.1:8420"
STEP = Progress("inference/a", "apply", None, 1, 1)
REPORT = Report("nothing", (), 1, 0)
CUT = httpx.ReadError("cut off")


def fed(events: Events, *told: tuple[str, Mapping[str, object]]) -> list[Event]:
    """The events of a stream that tells this, its data on as many lines as it has."""
    found: list[Event] = []
    for name, data in told:
        lines = json.dumps(data, indent=1).splitlines()
        for line in (": alive", "", f"event: {name}", *(f"data: {each}" for each in lines), ""):
            found += events.feed(line)
    return found


def test_a_whole_stream_is_its_events() -> None:
    events = Events(URL)
    assert fed(events, ("progress", event_data(STEP)), ("report", event_data(REPORT))) == [STEP, REPORT]
    events.finish()


def test_a_stream_that_ends_before_the_apply_is_a_server_that_went_away() -> None:
    events = Events(URL)
    assert fed(events, ("progress", event_data(STEP))) == [STEP]
    with pytest.raises(Unreachable, match=f"{URL} went away during the apply"):
        events.finish()
    assert isinstance(events.broken(CUT), Unreachable)


def test_a_problem_is_raised_at_the_end_of_the_stream() -> None:
    events = Events(URL)
    problem = error_data(ApplyBusy("another apply runs"))
    assert fed(events, ("problem", problem), ("progress", event_data(STEP))) == [STEP]
    with pytest.raises(ApplyBusy, match="another apply runs"):
        events.finish()


def test_a_problem_that_was_told_is_the_reason_for_a_stream_that_broke_off() -> None:
    events = Events(URL)
    fed(events, ("problem", error_data(StackconfError("it is full"))))
    assert str(events.broken(CUT)) == "it is full"
