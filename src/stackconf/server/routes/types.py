"""What can be installed in a stack: provider types, their fields, their JSON schema."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from stackconf.described import described
from stackconf.server.answers import told
from stackconf.server.hosted import hosted_of
from stackconf.server.threads import in_thread
from stackconf.shapes.types import listed_type_data, type_data

router = APIRouter(tags=["types"])


@router.get("/v1/provider-types")
async def types(request: Request) -> Response:
    """Every provider type that is installed here."""

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = stack.revision
            found = [listed_type_data(each) for each in stack.provider_types()]
            return told(request, {"types": found}, revision)

    return await in_thread(work)


@router.get("/v1/provider-types/{api}/{provider_type}")
async def show(request: Request, api: str, provider_type: str) -> Response:
    """One provider type: its fields, what a change of each costs, and its JSON schema, in which the
    fields that users may set are marked.
    """

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = stack.revision
            found = described(stack.manager.registry, f"{api}/{provider_type}")
            return told(request, type_data(found), revision)

    return await in_thread(work)


@router.get("/v1/inspect/provider-type")
async def meant(request: Request, name: str) -> Response:
    """The provider type that a person means: by its name, with or without its api, or that of a provider
    of the stack.
    """

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = stack.revision
            return told(request, type_data(stack.provider_type(name)), revision)

    return await in_thread(work)
