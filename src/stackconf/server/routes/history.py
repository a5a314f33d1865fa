"""What was: revisions, attempts, differences, and the way back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from stackconf.server.answers import told
from stackconf.server.asked import actor_of, expected_revision, expecting, read_as
from stackconf.server.documents import Prune, Rollback
from stackconf.server.hosted import hosted_of
from stackconf.server.threads import in_thread
from stackconf.shapes.history import (
    difference_data,
    history_data,
    pruned_data,
    revision_data,
    rolled_back_data,
)
from stackconf.shapes.plans import plan_data

router = APIRouter(tags=["history"])


@router.get("/v1/history")
async def read(request: Request, limit: Annotated[int | None, Query(ge=1, le=1_000_000)] = None) -> Response:
    """The revisions and the attempts to apply them, newest first."""

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = stack.revision
            return told(request, history_data(stack.history(limit=limit)), revision)

    return await in_thread(work)


@router.post("/v1/history/prune")
async def prune(request: Request) -> Response:
    """Forget all but the newest `keep` revisions and attempts, and nothing that is in use."""
    asked = await read_as(request, Prune)
    hosted, expected = hosted_of(request), expected_revision(request)

    def work() -> Response:
        with hosted.stack() as stack:
            revision = stack.revision
            if expected is not None:
                hosted.expect(expected)
            return told(request, pruned_data(stack.prune(asked.keep)), revision)

    return await in_thread(work)


@router.get("/v1/revisions/{revision}")
async def show(request: Request, revision: str, name: str | None = None) -> Response:
    """A revision with what was registered and assigned at it: a number, `head`, or `head-1`. `name` in
    the query says it where a path cannot.
    """
    named = revision if name is None else name

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            head = stack.revision
            return told(request, revision_data(stack.show(named)), head)

    return await in_thread(work)


@router.get("/v1/diff")
async def diff(
    request: Request,
    before: str,
    after: str = "head",
    effective: bool = False,  # noqa: FBT001, FBT002 (a query's flag)
) -> Response:
    """What changed from one revision to another."""

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = stack.revision
            found = stack.diff(before, after, effective=effective)
            return told(request, difference_data(found), revision)

    return await in_thread(work)


@router.post("/v1/rollback")
async def rollback(request: Request) -> Response:
    """Register and assign again what an old revision had, as a new one that says so."""
    asked = await read_as(request, Rollback)
    expected = expecting(request, asked.expected_revision)

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            done = stack.rollback(asked.revision, actor=actor_of(request), expected_revision=expected)
            plan = plan_data(stack.plan())
        return told(request, {**rolled_back_data(done), "plan": plan}, done.revision)

    return await in_thread(work)
