"""From what is wanted to what runs: `/v1/plan`, `/v1/apply`, `/v1/recover`, `/v1/status`."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from attrs import evolve
from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from stackconf.apply import Progress
from stackconf.errors import StackconfError, UnknownName
from stackconf.server.answers import told
from stackconf.server.asked import actor_of, expected_revision, read_as
from stackconf.server.documents import Apply, Nothing, Recover
from stackconf.server.hosted import hosted_of
from stackconf.server.threads import begun, ended, in_thread, more
from stackconf.shapes.errors import error_data
from stackconf.shapes.hardware import hardware_from
from stackconf.shapes.plans import plan_data, plan_from
from stackconf.shapes.reports import event_data, report_data
from stackconf.shapes.status import status_data

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stackconf.server.applies import Running

EVENT_STREAM = "text/event-stream"
_LONGEST_NUMBER = 9
_BEAT = 15.0
"""Seconds of silence after which a stream says that it is alive."""


router = APIRouter(tags=["apply"])


@router.get("/v1/plan")
async def plan(request: Request) -> Response:
    """What an apply would change now."""

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            made = stack.plan()
            about = {"stack": stack.name, "store": stack.store.identity()}
        return told(request, {**about, **plan_data(made)}, made.base_revision)

    return await in_thread(work)


@router.post("/v1/apply")
async def apply(request: Request) -> Response:
    """Make the running providers match the head revision, all or nothing."""
    asked = await read_as(request, Apply)
    hosted, actor, expected = hosted_of(request), actor_of(request), expected_revision(request)
    made = None if asked.plan is None else plan_from(asked.plan.model_dump())
    if made is not None and asked.facts is not None:
        made = evolve(made, hardware=hardware_from(asked.facts))

    def begin() -> Running:
        return hosted.apply(
            made, actor=actor, require_healthy=asked.require_healthy, expected_revision=expected
        )

    return await _outcome(request, await begun(hosted, begin, asked.wait))


@router.post("/v1/recover")
async def recover(request: Request) -> Response:
    """Take what nobody knows the state of back to what it had."""
    asked = await read_as(request, Recover)
    hosted, actor, expected = hosted_of(request), actor_of(request), expected_revision(request)

    def begin() -> Running:
        return hosted.recover(actor=actor, expected_revision=expected)

    return await _outcome(request, await begun(hosted, begin, asked.wait))


@router.post("/v1/retry")
async def retry(request: Request) -> Response:
    """Try again what could not be reached, and nothing else."""
    await read_as(request, Nothing)
    hosted, actor, expected = hosted_of(request), actor_of(request), expected_revision(request)
    running = await in_thread(lambda: hosted.retry(actor=actor, expected_revision=expected))
    return await _outcome(request, running)


@router.get("/v1/apply/events")
async def events(request: Request) -> Response:
    """The events of the apply that runs, or of the last one: from its beginning, or after the one that
    `Last-Event-ID` names. Where nothing more will come the answer is 204, which ends a browser's tries.
    """
    running = hosted_of(request).applies.current
    if running is None:
        raise UnknownName("nothing was applied by this server yet")
    seen = _seen(running, request.headers.get("last-event-id", ""))
    if running.over and seen >= len(running.events) + (running.error is not None):
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Cache-Control": "no-store"})
    return stream(running, seen)


@router.get("/v1/status")
async def status(request: Request) -> Response:
    """For each provider what is wanted, what was tried last, and what it runs with."""

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            found = stack.status()
        return told(request, status_data(found), found.revision)

    return await in_thread(work)


async def _outcome(request: Request, running: Running) -> Response:
    if EVENT_STREAM in request.headers.get("accept", ""):
        return stream(running, 0)
    if "respond-async" in request.headers.get("prefer", ""):
        data = {"apply": running.number, "events": "/v1/apply/events"}
        answer = told(request, data, hosted_of(request).revision, status=202)
        answer.headers["Location"] = "/v1/apply/events"
        return answer
    await ended(running)
    report = running.report()
    return told(request, report_data(report), report.revision)


def _seen(running: Running, last: str) -> int:
    """How many events of an apply somebody has who has this one. Of another apply it is none."""
    apply, _, number = last.rpartition("-")
    known = apply == running.id and number.isdecimal() and len(number) <= _LONGEST_NUMBER
    return int(number) if known else 0


def stream(running: Running, seen: int) -> StreamingResponse:
    """An apply as server-sent events: `progress` each, then `report`, and `problem` where it failed."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(running, seen), media_type=EVENT_STREAM, headers=headers)


async def _events(running: Running, seen: int) -> AsyncIterator[str]:
    number = seen = min(seen, len(running.events))
    async for event in more(running, seen, _BEAT):
        if event is None:
            yield ": still running\n\n"
            continue
        number += 1
        name = "progress" if isinstance(event, Progress) else "report"
        yield _event(name, event_data(event), f"{running.id}-{number}")
    if running.error is not None:
        yield _event("problem", _problem(running.error), f"{running.id}-{number + 1}")


def _problem(error: BaseException) -> dict[str, Any]:
    if isinstance(error, StackconfError):
        return error_data(error)
    return error_data(StackconfError("this is a defect of stackconf; the server's log says more"))


def _event(name: str, data: dict[str, Any], identity: str) -> str:
    return f"event: {name}\nid: {identity}\ndata: {json.dumps(data, default=str)}\n\n"
