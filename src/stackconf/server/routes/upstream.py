"""Upstream's own routes, for upstream's own clients: under `/v1`, and where OGX 1.5.0 has them too."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from stackconf._version import __version__
from stackconf.errors import UnknownName
from stackconf.server.answers import answer, told
from stackconf.server.hosted import Rendered, hosted_of, rendered
from stackconf.server.threads import in_thread
from stackconf.server.upstream import Info, Level, chosen, providers, routes
from stackconf.shapes.errors import CONTENT_TYPE, error_data

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fastapi import FastAPI

PREFIXES = ("/v1", "/v1alpha/admin")
"""llama-stack 0.2.12 has the first, OGX 1.5.0 both."""

_OLLAMA: Info = {
    "api": "inference",
    "provider_id": "ollama",
    "provider_type": "remote::ollama",
    "config": {"url": "http://localhost:11434", "allowed_models": None},
    "health": {"status": "OK", "message": "runs with revision 3"},
}
_ROUTE = {"route": "/v1/providers", "method": "GET", "provider_types": []}
_NO_ERRORS: Mapping[int | str, dict[str, Any]] = {}
_TEXT = {"type": "string"}
_HEALTH = {"type": "string", "enum": ["OK", "Error", "Not Implemented"]}
_PROVIDER = {
    "type": "object",
    "properties": {
        "api": _TEXT,
        "provider_id": _TEXT,
        "provider_type": _TEXT,
        "config": {"type": "object"},
        "health": {
            "type": "object",
            "properties": {"status": _HEALTH, "message": _TEXT},
            "required": ["status"],
        },
        "same_id": {"type": "array", "items": _TEXT, "description": "The others with this id, by name."},
    },
    "required": ["api", "provider_id", "provider_type", "config", "health"],
}
_UNKNOWN = {
    "description": "Nobody has it. Upstream's clients raise their `NotFoundError`.",
    "content": {
        CONTENT_TYPE: {
            "schema": {
                "type": "object",
                "properties": {"type": _TEXT, "title": _TEXT, "status": {"type": "integer"}, "detail": _TEXT},
                "required": ["type", "title", "status", "detail"],
            },
            "example": {
                **error_data(UnknownName("no provider `olama` in the stack; did you mean `ollama`?")),
                "instance": "/v1/providers/olama",
            },
        }
    },
}
_ROUTE_INFO = {
    "type": "object",
    "properties": {"route": _TEXT, "method": _TEXT, "provider_types": {"type": "array", "items": _TEXT}},
    "required": ["route", "method", "provider_types"],
}


router = APIRouter(tags=["upstream"])
_HEALTHY = rendered({"status": "OK"}, 0)
_OWN_VERSION = rendered({"version": __version__}, 0)


async def list_providers(request: Request) -> Response:
    """Every provider with its effective configuration and its health."""
    return answer(request, await _every(request))


async def inspect_provider(request: Request, provider_id: str, api: str | None = None) -> Response:
    """One provider, by its id or by `api/provider_id`.

    Where several apis use the id it is the first one of the stack file, and `same_id` names the
    others. `api` picks one.
    """
    made = await _every(request)
    return told(request, chosen(_infos(made.body), provider_id, api), made.revision)


async def health(request: Request) -> Response:
    """Whether this server answers; `/v1/ready` says whether the stack is as it should be."""
    return answer(request, _HEALTHY)


async def version(request: Request) -> Response:
    """The version of stackconf."""
    return answer(request, _OWN_VERSION)


async def list_routes(request: Request, api_filter: Level | None = None) -> Response:
    """Every route of this server, or those of one level."""
    return told(request, {"data": routes(_paths(request.app), api_filter)}, 0)


async def _every(request: Request) -> Rendered:
    hosted = hosted_of(request)
    made = hosted.at_hand("providers")
    if made is None:
        made = await in_thread(lambda: hosted.once("providers", lambda stack: {"data": providers(stack)}))
    return made


@lru_cache(maxsize=2)
def _infos(body: bytes) -> list[Info]:
    """What a rendered list says; one provider is asked for as often as all of them."""
    infos: list[Info] = json.loads(body)["data"]
    return infos


def _paths(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every path and method of the application, as its own document has them."""
    for path, operations in app.openapi()["paths"].items():
        for method in operations:
            yield path, method.upper()


def _add(
    path: str,
    endpoint: Callable[..., Any],
    schema: dict[str, Any],
    example: dict[str, Any],
    errors: Mapping[int | str, dict[str, Any]] = _NO_ERRORS,
) -> None:
    content = {"application/json": {"schema": schema, "example": example}}
    router.add_api_route(
        path,
        endpoint,
        responses={200: {"description": "As upstream answers.", "content": content}, **errors},
        response_class=Response,
    )


def _many(item: dict[str, Any], example: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    return _only("data", {"type": "array", "items": item}), {"data": [example]}


def _only(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name]}


for _prefix in PREFIXES:
    router.add_api_route(f"{_prefix}/providers/", list_providers, include_in_schema=False)
    _add(f"{_prefix}/providers", list_providers, *_many(_PROVIDER, _OLLAMA))
    _add(f"{_prefix}/providers/{{provider_id:path}}", inspect_provider, _PROVIDER, _OLLAMA, {404: _UNKNOWN})
    _add(f"{_prefix}/health", health, _only("status", _HEALTH), {"status": "OK"})
    _add(f"{_prefix}/version", version, _only("version", _TEXT), {"version": __version__})
    _add(f"{_prefix}/inspect/routes", list_routes, *_many(_ROUTE_INFO, _ROUTE))
