"""From what is wanted to what runs: `/v1/plan`, `/v1/apply`, `/v1/recover`, `/v1/status`."""

from __future__ import annotations

import json
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
from stackconf.server.threads import ended, in_thread, more
from stackconf.shapes.errors import error_data
from stackconf.shapes.hardware import hardware_from
from stackconf.shapes.plans import plan_data, plan_from
from stackconf.shapes.reports import event_data, report_data
from stackconf.shapes.status import status_data

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from stackconf.server.applies import Running

EVENT_STREAM = "text/event-stream"
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
        if expected is not None:
            hosted.expect(expected)
        return hosted.apply(made, actor=actor, require_healthy=asked.require_healthy, wait=asked.wait)

    return await _outcome(request, await in_thread(begin))


@router.post("/v1/recover")
async def recover(request: Request) -> Response:
    """Take what nobody knows the state of back to what it had."""
    asked = await read_as(request, Recover)
    hosted, actor = hosted_of(request), actor_of(request)
    running = await in_thread(lambda: hosted.recover(actor=actor, wait=asked.wait))
    return await _outcome(request, running)


@router.post("/v1/retry")
async def retry(request: Request) -> Response:
    """Try again what could not be reached, and nothing else."""
    await read_as(request, Nothing)
    hosted, actor = hosted_of(request), actor_of(request)
    running = await in_thread(lambda: hosted.retry(actor=actor))
    return await _outcome(request, running)


@router.get("/v1/apply/events")
async def events(request: Request) -> Response:
    """The events of the apply that runs, or of the last one, from its beginning."""
    running = hosted_of(request).applies.current
    if running is None:
        raise UnknownName("nothing was applied by this server yet")
    last = request.headers.get("last-event-id", "")
    return stream(running, int(last) if last.isdecimal() else 0)


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


def stream(running: Running, seen: int) -> StreamingResponse:
    """An apply as server-sent events: `progress` each, then `report`, and `problem` where it failed."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(running, seen), media_type=EVENT_STREAM, headers=headers)


async def _events(running: Running, seen: int) -> AsyncIterator[str]:
    number = seen
    async for event in more(running, seen, _BEAT):
        if event is None:
            yield ": still running\n\n"
            continue
        number += 1
        name = "progress" if isinstance(event, Progress) else "report"
        yield _event(name, event_data(event), number)
    if isinstance(running.error, StackconfError):
        yield _event("problem", error_data(running.error), number + 1)


def _event(name: str, data: dict[str, Any], number: int) -> str:
    return f"event: {name}\nid: {number}\ndata: {json.dumps(data, default=str)}\n\n"
