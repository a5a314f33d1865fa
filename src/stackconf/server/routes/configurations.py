"""What users register: `/v1/configurations` and `/v1/inspect/configurations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response

from stackconf.errors import ApplyError, InvalidConfig
from stackconf.server.answers import answer, told
from stackconf.server.asked import actor_of, expected_revision, read_object, refuse_unknown
from stackconf.server.hosted import hosted_of
from stackconf.server.threads import ended, in_thread
from stackconf.shapes.configurations import configuration_data, listed_data, registered_data
from stackconf.shapes.plans import plan_data
from stackconf.shapes.reports import report_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackconf.configurations import Registered
    from stackconf.stack import Stack

YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")
_CHANGE_KEYS = ("expected_revision", "on_conflict")
_APPLY_KEYS = ("apply", "require_healthy", "wait")
_REGISTER_KEYS = ("config", "name", "assign", "on_dropped", "seal", *_APPLY_KEYS, *_CHANGE_KEYS)


router = APIRouter(tags=["configurations"])


@router.get("/v1/inspect/configurations")
async def inspect(request: Request) -> Response:
    """The effective configuration of every provider, user fields only."""
    hosted = hosted_of(request)
    made = hosted.at_hand("inspect")
    if made is None:
        made = await in_thread(lambda: hosted.once("inspect", lambda stack: stack.configurations.inspect()))
    return answer(request, made)


@router.get("/v1/configurations")
async def list_(request: Request) -> Response:
    """Every configuration, registered or shipped by a plugin; assigned ones first."""

    def listed(stack: Stack) -> object:
        found = stack.configurations.list()
        return {"revision": stack.revision, "configurations": [listed_data(each) for each in found]}

    return answer(request, await in_thread(lambda: hosted_of(request).once("configurations", listed)))


@router.post("/v1/configurations/register")
async def register(request: Request) -> Response:
    """Register a configuration and assign it."""
    asked = await _registration(request)
    apply, options = bool(asked.pop("apply", False)), _apply_options(asked)
    config, name = asked.pop("config"), asked.pop("name", "default")

    def work() -> tuple[Registered, bool]:
        with hosted_of(request).stack() as stack:
            made = stack.configurations.register(config, name, actor=actor_of(request), **asked)
            _ = made.plan
            listed = stack.configurations.list()
        return made, any(each.assigned for each in listed if each.name == name)

    registered, assigned = await in_thread(work)
    data = registered_data(registered, assigned=assigned)
    if apply:
        running = hosted_of(request).apply(actor=actor_of(request), **options)
        await ended(running)
        try:
            data["report"] = report_data(running.report())
        except ApplyError as error:
            error.add_note(f"registered as revision {registered.revision}")
            raise
    return told(request, data, registered.revision)


@router.get("/v1/configurations/{name}")
async def get(request: Request, name: str) -> Response:
    """One configuration, registered or shipped."""
    from stackconf.history import shown_configuration

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            found = shown_configuration(stack.configurations.get(name))
            return told(request, configuration_data(found), stack.revision)

    return await in_thread(work)


@router.delete("/v1/configurations/{name}")
async def unregister(request: Request, name: str) -> Response:
    """Forget a registered configuration, unassigning it first."""
    return await _change(request, name, "unregistered", lambda stack: stack.configurations.unregister)


@router.post("/v1/configurations/{name}/assign")
async def assign(request: Request, name: str) -> Response:
    """Make a configuration count, above those assigned before."""
    return await _change(request, name, "assigned", lambda stack: stack.configurations.assign)


@router.post("/v1/configurations/{name}/unassign")
async def unassign(request: Request, name: str) -> Response:
    """Make a configuration no longer count; it stays available."""
    return await _change(request, name, "unassigned", lambda stack: stack.configurations.unassign)


async def _change(
    request: Request, name: str, word: str, method: Callable[[Stack], Callable[..., int]]
) -> Response:
    asked = _expecting(request, await read_object(request, _CHANGE_KEYS))

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = method(stack)(name, actor=actor_of(request), **asked)
            plan = plan_data(stack.plan())
        return told(request, {"name": name, "result": word, "revision": revision, "plan": plan}, revision)

    return await in_thread(work)


async def _registration(request: Request) -> dict[str, Any]:
    """What `register` is asked: its arguments, and what an apply after it is to do."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in YAML_TYPES:
        return _expecting(request, {"config": await request.body(), **request.query_params})
    asked = await read_object(request)
    if not isinstance(asked.get("config"), (dict, str)):
        return _expecting(request, {"config": asked})
    refuse_unknown(asked, _REGISTER_KEYS)
    if isinstance(asked["config"], str):
        asked["config"] = asked["config"].encode()  # a text is never the name of a file here
    return _expecting(request, asked)


def _expecting(request: Request, asked: dict[str, Any]) -> dict[str, Any]:
    revision = expected_revision(request)
    if revision is not None:
        if asked.get("expected_revision", revision) != revision:
            raise InvalidConfig("If-Match and `expected_revision` name two revisions; give one")
        asked["expected_revision"] = revision
    return asked


def _apply_options(asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "require_healthy": bool(asked.pop("require_healthy", False)),
        "wait": float(asked.pop("wait", 0.0)),
    }
