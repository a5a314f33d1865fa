"""What there is to see: where values come from, the machine, provider types, the file as exported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from stackconf.resolve.render import SHOWN
from stackconf.server.answers import answer
from stackconf.server.hosted import hosted_of
from stackconf.server.routes.describing import said
from stackconf.server.threads import in_thread
from stackconf.shapes.applied import applied_data
from stackconf.shapes.drift import drift_data
from stackconf.shapes.errors import error_data
from stackconf.shapes.exports import export_data
from stackconf.shapes.hardware import hardware_data
from stackconf.shapes.issues import issues_data
from stackconf.shapes.origins import origin_data

if TYPE_CHECKING:
    from stackconf.stack import Stack


router = APIRouter(tags=["look"])


@router.get("/v1/inspect/effective")
async def effective(request: Request) -> Response:
    """Every provider's whole configuration, secrets redacted."""
    made = await in_thread(
        lambda: hosted_of(request).once("effective", lambda stack: stack.resolution.rendered(SHOWN))
    )
    return answer(request, made)


@router.get("/v1/inspect/hardware")
async def hardware(
    request: Request,
    recorded: bool = False,  # noqa: FBT001, FBT002 (a query's flag)
) -> Response:
    """What is known about the machine that hosts the stack; with `recorded` as a snapshot, which says of
    which machine and from when it is.
    """
    from stackconf.hardware.snapshot import recorded as snapshot

    return await said(
        request, lambda stack: hardware_data(snapshot(stack.hardware) if recorded else stack.hardware)
    )


@router.get("/v1/issues")
async def issues(request: Request) -> Response:
    """Everything that is wrong with the stack, or was dropped."""
    return await said(
        request,
        lambda stack: {
            "issues": issues_data(stack.issues),
            "problems": [error_data(each) for each in stack.problems],
        },
    )


@router.get("/v1/explain/{provider:path}")
async def explain(
    request: Request, provider: str, field: str | None = None, name: str | None = None
) -> Response:
    """Where each value of a provider is from, or those at and below one field. `name` in the query says
    the provider where a path cannot.
    """
    named = provider if name is None else name

    def origins(stack: Stack) -> object:
        key = stack.key_of(named)
        found = stack.explain(key, field)
        share = stack.resolution.shares.get(key)
        return {
            "provider": key,
            "provider_type": stack.resolution.providers[key].provider.provider_type,
            "share": None if share is None else {"reason": share.reason, "some": bool(share.units)},
            "origins": [origin_data(each) for each in found],
        }

    return await said(request, origins)


@router.get("/v1/drift")
async def drift(request: Request) -> Response:
    """Where what is applied differs from what the files say, and who or what did it."""
    return await said(request, lambda stack: drift_data(stack.drift()))


@router.get("/v1/applied")
async def applied(request: Request) -> Response:
    """What was last applied to each provider."""
    return await said(request, lambda stack: applied_data(stack.applied()))


@router.get("/v1/export")
async def export(
    request: Request,
    applied: bool = False,  # noqa: FBT001, FBT002 (a query's flag)
    class_defaults: bool = False,  # noqa: FBT001, FBT002
) -> Response:
    """The configuration as a stack file."""
    return await said(
        request, lambda stack: export_data(stack.export(applied=applied, class_defaults=class_defaults))
    )
