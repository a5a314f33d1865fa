"""The server itself: whether it is ready."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response

from stackconf._version import __version__
from stackconf.server.answers import told
from stackconf.server.hosted import hosted_of
from stackconf.server.threads import in_thread
from stackconf.shapes.errors import error_data
from stackconf.shapes.issues import issues_data

router = APIRouter(tags=["service"])


@router.get("/", include_in_schema=False)
async def index(request: Request) -> Response:
    """What this is, for whoever looks here first."""
    hosted = hosted_of(request)
    data = {
        "name": "stackconf",
        "version": __version__,
        "stack": hosted.name,
        "inspect": "/v1/inspect/configurations",
        "ready": "/v1/ready",
        "openapi": f"{request.app.state.prefix}/openapi.json",
    }
    return told(request, data, hosted.revision)


@router.get("/v1/ready")
async def ready(request: Request) -> Response:
    """Whether the stack can be applied, and what is in the way: 503 while its configuration is wrong,
    its store cannot be written, or the server is ending. A provider that is down does not make the
    whole stack unready; `settled` says whether each runs with what is wanted.
    """
    hosted = hosted_of(request)

    def work() -> Response:
        with hosted.stack() as stack:
            revision = stack.revision
            errors, settled = stack.resolution.errors, stack.status().settled
            trouble = stack.store.trouble()
        file = hosted.file
        fine = not errors and not trouble and not hosted.applies.closed
        data: dict[str, Any] = {
            "ready": fine,
            "settled": settled,
            "revision": revision,
            "applying": hosted.applies.running is not None,
            "ending": hosted.applies.closed,
            "stack_file": {
                "name": hosted.name,
                "read_at": file.read_at,
                "tried_at": file.tried_at or None,
                "problem": None if file.problem is None else error_data(file.problem),
            },
            "store": {"problem": trouble or None},
            "issues": issues_data(errors),
        }
        status = HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE
        return told(request, data, revision, status=status)

    return await in_thread(work)
