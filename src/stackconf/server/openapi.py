"""The OpenAPI document: for every operation what it takes, what it gives, an example, and its errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import field, frozen
from pydantic.json_schema import models_json_schema

from stackconf.server import documents

if TYPE_CHECKING:
    from fastapi import FastAPI
    from pydantic import BaseModel

Model: TypeAlias = "type[BaseModel]"

_REF = "#/components/schemas/{model}"
_STREAM = "text/event-stream"


@frozen
class Operation:
    """One operation: the model of its answer, of its body, and the other answers that it may give."""

    answer: Model | None
    asked: Model | None = None
    needs_body: bool = False
    also: Mapping[int, Model] = field(factory=dict)
    streams: bool = False
    changes: bool = False


_IF_MATCH = (
    "With `If-Match: ETAG` of an earlier answer the change is refused (412), with who changed what, where"
    " another came first."
)
"""Said in words: what is right there depends on the moment, which no schema can say."""
_EVERYWHERE: tuple[Model, ...] = (documents.Problem, documents.Streamed)

OPERATIONS: Mapping[str, Operation] = {
    "GET /v1/inspect/configurations": Operation(documents.Inspected),
    "GET /v1/inspect/effective": Operation(documents.Inspected),
    "GET /v1/inspect/hardware": Operation(None),
    "GET /v1/configurations": Operation(documents.Configurations),
    "GET /v1/configurations/{name}": Operation(documents.Configuration),
    "DELETE /v1/configurations/{name}": Operation(documents.Changed, documents.Expecting, changes=True),
    "POST /v1/configurations/register": Operation(
        documents.Registered, documents.Registration, needs_body=True, changes=True
    ),
    "POST /v1/configurations/{name}/assign": Operation(documents.Changed, documents.Expecting, changes=True),
    "POST /v1/configurations/{name}/unassign": Operation(
        documents.Changed, documents.Expecting, changes=True
    ),
    "GET /v1/explain/{provider}": Operation(documents.Explained),
    "GET /v1/plan": Operation(documents.StackPlan),
    "POST /v1/apply": Operation(
        documents.Report, documents.Apply, also={202: documents.Begun}, streams=True, changes=True
    ),
    "POST /v1/recover": Operation(
        documents.Report, documents.Recover, also={202: documents.Begun}, streams=True, changes=True
    ),
    "POST /v1/retry": Operation(
        documents.Report, documents.Nothing, also={202: documents.Begun}, streams=True, changes=True
    ),
    "GET /v1/stack": Operation(documents.Stack),
    "GET /v1/inspect/providers": Operation(documents.Providers),
    "GET /v1/inspect/shares": Operation(documents.Shares),
    "GET /v1/inspect/provider-type": Operation(documents.ProviderType),
    "POST /v1/compare": Operation(documents.Comparison, documents.Compare, needs_body=True),
    "POST /v1/history/prune": Operation(documents.Pruned, documents.Prune, needs_body=True, changes=True),
    "GET /v1/apply/events": Operation(None, streams=True),
    "GET /v1/status": Operation(documents.Status),
    "GET /v1/issues": Operation(documents.Issues),
    "GET /v1/drift": Operation(documents.Drift),
    "GET /v1/applied": Operation(documents.Applied),
    "GET /v1/export": Operation(documents.Exported),
    "GET /v1/history": Operation(documents.History),
    "GET /v1/revisions/{revision}": Operation(documents.Revision),
    "GET /v1/diff": Operation(documents.Difference),
    "POST /v1/rollback": Operation(documents.RolledBack, documents.Rollback, needs_body=True, changes=True),
    "GET /v1/ready": Operation(documents.Ready, also={503: documents.Ready}),
    "GET /v1/provider-types": Operation(documents.Types),
    "GET /v1/provider-types/{api}/{provider_type}": Operation(documents.ProviderType),
}
"""By method and path, as the document names it. Operations that are not here describe themselves."""


def install(app: FastAPI) -> None:
    """Have the application give this document at `/openapi.json`."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = described(plain())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


@cache
def examples() -> dict[str, Any]:
    """An example of each answer and each body, as a real server gave and took them."""
    text = files("stackconf.server").joinpath("examples.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def described(document: dict[str, Any]) -> dict[str, Any]:
    """FastAPI's document with what it cannot know: bodies, examples, errors, entity tags, tokens."""
    paths = {path.replace(":path}", "}"): methods for path, methods in document["paths"].items()}
    models = {
        model
        for operation in OPERATIONS.values()
        for model in (operation.answer, operation.asked, *operation.also.values(), *_EVERYWHERE)
        if model is not None
    }
    _, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda each: each.__name__)],
        ref_template=_REF,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= definitions["$defs"]
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "Where the server has tokens"}
    }
    for path, methods in paths.items():
        for method, told in methods.items():
            _describe(f"{method.upper()} {path}", told)
    return {**document, "paths": paths, "security": [{"token": []}, {}]}


def _describe(name: str, told: dict[str, Any]) -> None:
    operation = OPERATIONS.get(name)
    told["responses"].pop("422", None)
    told["responses"] |= {code: _problem(code) for code in ("4XX", "5XX")}
    if operation is None:
        return
    told["responses"]["200"] = _answer(name, operation)
    for code, model in operation.also.items():
        told["responses"][str(code)] = _of(model, f"{name} {code}")
    if name.startswith("GET") and not operation.streams:
        told["responses"]["304"] = {"description": "Nothing has changed: `If-None-Match` has its ETag"}
        _header(told, "If-None-Match", "The ETag of an answer that is at hand")
    if operation.changes:
        told["description"] += f"\n\n{_IF_MATCH}"
    if operation.asked is not None:
        _body(name, operation, told)


def _answer(name: str, operation: Operation) -> dict[str, Any]:
    if operation.answer is not None:
        made = _of(operation.answer, name)
    else:
        made = {"description": "What was asked for", "content": {}}
        if not operation.streams:
            made["content"]["application/json"] = {"schema": {"type": "object"}, **_example(name)}
    if operation.streams:
        made["content"][_STREAM] = {
            "schema": {"$ref": _REF.format(model="Streamed")},
            "example": "event: progress\nid: 5c0f1e2d-1\ndata: {}\n\n",
        }
    if not operation.streams:
        made["headers"] = {
            "ETag": {"description": "The revision, and a digest of the body", "schema": {"type": "string"}}
        }
    return made


def _of(model: Model, example: str) -> dict[str, Any]:
    content = {"schema": {"$ref": _REF.format(model=model.__name__)}, **_example(example)}
    return {"description": (model.__doc__ or "").strip(), "content": {"application/json": content}}


def _problem(code: str) -> dict[str, Any]:
    content = {
        "schema": {"$ref": _REF.format(model="Problem")},
        **_example(f"problem {code}"),
    }
    words = {"4XX": "What was asked cannot be done", "5XX": "What was asked was tried, and failed"}
    return {"description": words[code], "content": {"application/problem+json": content}}


def _body(name: str, operation: Operation, told: dict[str, Any]) -> None:
    assert operation.asked is not None  # noqa: S101 (asked before)
    schema = {"$ref": _REF.format(model=operation.asked.__name__)}
    content = {"application/json": {"schema": schema, **_example(f"{name} body")}}
    told["requestBody"] = {"required": operation.needs_body, "content": content}


def _example(name: str) -> dict[str, Any]:
    return {"example": examples()[name]} if name in examples() else {}


def _header(told: dict[str, Any], name: str, description: str) -> None:
    told.setdefault("parameters", []).append(
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": description,
            "schema": {"type": "string"},
        }
    )
