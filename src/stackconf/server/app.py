"""The application: one hosted stack behind its routes."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI

from stackconf._version import __version__
from stackconf.server import openapi, problems
from stackconf.server.access import Guard, Rules
from stackconf.server.at_hand import AtHand
from stackconf.server.measured import Measured, Metrics
from stackconf.server.queries import known_query
from stackconf.server.routes import (
    applying,
    configurations,
    describing,
    history,
    looking,
    metrics,
    service,
    types,
    upstream,
)

if TYPE_CHECKING:
    from stackconf.server.hosted import Hosted

_PARTS = (configurations, applying, looking, describing, history, types, service, metrics, upstream)

_SHORT_CUTS = {
    "/v1/inspect/configurations": "inspect",
    "/v1/inspect/effective": "effective",
    "/v1/configurations": "configurations",
    **dict.fromkeys((f"{prefix}/providers" for prefix in upstream.PREFIXES), "providers"),
}


def create_app(hosted: Hosted, rules: Rules | None = None, *, prefix: str | None = None) -> FastAPI:
    """The Configuration API of a hosted stack, to be served by any ASGI server.

    With a `prefix` it stands beside a server that answers upstream's clients itself; its first page
    and its document are under that.
    """
    parts = _PARTS if prefix is None else tuple(part for part in _PARTS if part is not upstream)
    app = FastAPI(
        title="stackconf",
        version=__version__,
        summary="The configuration of a stack of AI providers: what it is, why, and how to change it.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.stackconf = hosted
    app.state.metrics = measured = Metrics(hosted)
    app.state.prefix = prefix or ""
    for part in parts:
        strict = part is not upstream  # upstream's servers pass over what they do not know
        app.include_router(part.router, dependencies=[Depends(known_query)] if strict else [])
    problems.install(app, [*app.routes, *(route for part in parts for route in part.router.routes)])
    openapi.install(app)
    app.add_middleware(AtHand, hosted=hosted, paths=_SHORT_CUTS)
    app.add_middleware(Guard, rules=rules or Rules())
    app.add_middleware(Measured, requests=measured.requests, plain=_plain())
    return app


def own_paths() -> frozenset[str]:
    """The templates of the routes that stackconf alone has."""
    return _paths(tuple(part for part in _PARTS if part is not upstream))


def _plain() -> frozenset[str]:
    """The paths of routes that have no parameters."""
    return frozenset(path for path in _paths(_PARTS) if "{" not in path) | {"/openapi.json"}


def _paths(parts: Iterable[ModuleType]) -> frozenset[str]:
    routes = (route for part in parts for route in part.router.routes)
    return frozenset(getattr(route, "path", "/") for route in routes)
