"""What Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from stackconf.server.measured import CONTENT_TYPE
from stackconf.server.threads import in_thread

if TYPE_CHECKING:
    from stackconf.server.measured import Metrics

_EXAMPLE = """\
# HELP stackconf_providers Providers by where they stand.
# TYPE stackconf_providers gauge
stackconf_providers{standing="applied"} 2.0
stackconf_providers{standing="to apply"} 0.0
"""

router = APIRouter(tags=["service"])


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "description": "Prometheus's text format.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        }
    },
)
async def metrics(request: Request) -> Response:
    """Requests, applies and where the stack stands, for Prometheus."""
    measured: Metrics = request.app.state.metrics
    made = await in_thread(measured.text)
    return Response(made, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})
