"""The server itself: readiness."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from stackconf.server.answers import told
from stackconf.server.hosted import hosted_of
from stackconf.server.threads import in_thread

router = APIRouter(tags=["service"])


@router.get("/v1/ready")
async def ready(request: Request) -> Response:
    """Whether the stack is valid and its providers run with what is wanted."""

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            errors = [str(issue) for issue in stack.resolution.errors]
            settled = stack.status().settled
            revision = stack.revision
        data = {"ready": not errors and settled, "settled": settled, "problems": errors}
        return told(request, data, revision, status=200 if data["ready"] else 503)

    return await in_thread(work)
