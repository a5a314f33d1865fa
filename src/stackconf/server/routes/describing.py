"""The stack and what it is made of: its name, its providers, who has what of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

from stackconf.server.answers import told
from stackconf.server.asked import read_as
from stackconf.server.documents import Compare
from stackconf.server.hosted import hosted_of
from stackconf.server.threads import in_thread
from stackconf.shapes.comparisons import comparison_data
from stackconf.shapes.hardware import claims_data, hardware_from, shares_data
from stackconf.shapes.types import listed_provider_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackconf.stack import Stack


router = APIRouter(tags=["look"])


async def said(request: Request, make: Callable[[Stack], object]) -> Response:
    """What is made of the stack, as an answer about its head revision."""

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = stack.revision
            return told(request, make(stack), revision)

    return await in_thread(work)


@router.get("/v1/stack")
async def stack(request: Request, provider: str | None = None) -> Response:
    """Which stack this is, and its head revision: the file's name, the id of the store, and the
    providers that could not be reached when the head revision was applied. With `provider` also the
    `api/provider_id` that this means.
    """

    def about(stack: Stack) -> object:
        return {
            "stack": stack.name,
            "store": stack.store.identity(),
            "revision": stack.revision,
            "pending": list(stack.pending),
            **({} if provider is None else {"provider": stack.key_of(provider)}),
        }

    return await said(request, about)


@router.get("/v1/inspect/providers")
async def providers(request: Request) -> Response:
    """Every provider of the stack, and its state."""
    return await said(
        request, lambda stack: {"providers": [listed_provider_data(each) for each in stack.providers()]}
    )


@router.get("/v1/inspect/shares")
async def shares(request: Request) -> Response:
    """What of the accelerators each provider may use, and what its own fields take of them."""
    return await said(
        request,
        lambda stack: {"shares": shares_data(stack.shares), "claims": claims_data(stack.resolution.claims)},
    )


@router.post("/v1/compare")
async def compare(request: Request) -> Response:
    """The effective configuration on other machines, side by side; nothing is changed."""
    asked = await read_as(request, Compare)
    machines = {name: hardware_from(each) for name, each in asked.machines.items()}
    return await said(request, lambda stack: comparison_data(stack.compare(machines)))
