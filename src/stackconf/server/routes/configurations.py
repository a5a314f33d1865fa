"""What users register: `/v1/configurations` and `/v1/inspect/configurations`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import APIRouter, Query, Request, Response

from stackconf.errors import InvalidConfig
from stackconf.given import Text
from stackconf.server.answers import answer, told
from stackconf.server.asked import (
    YAML_TYPES,
    actor_of,
    checked,
    expecting,
    from_query,
    json_of,
    media_type,
    read_as,
)
from stackconf.server.documents import Expecting, Registration
from stackconf.server.hosted import hosted_of
from stackconf.server.threads import begun, ended, in_thread
from stackconf.shapes.configurations import configuration_data, listed_data, registered_data
from stackconf.shapes.plans import plan_data
from stackconf.shapes.reports import report_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from stackconf.configurations import Registered
    from stackconf.given import Source
    from stackconf.stack import Stack

Named: TypeAlias = Annotated[
    str | None, Query(alias="name", description="The name, where a path cannot say it: `a/b`, or `..`")
]
"""The path then says anything."""

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
async def list_(
    request: Request,
    *,
    fit: bool = False,
) -> Response:
    """Every configuration, registered or shipped by a plugin; assigned ones first. With `fit` those that
    say for which machine they are, are compared with this one.
    """

    def listed(stack: Stack) -> object:
        revision, found = stack.revision, stack.configurations.list(fit=fit)
        return {"revision": revision, "configurations": [listed_data(each) for each in found]}

    what = "configurations that fit" if fit else "configurations"
    return answer(request, await in_thread(lambda: hosted_of(request).once(what, listed)))


@router.post("/v1/configurations/register")
async def register(request: Request) -> Response:
    """Register a configuration and assign it; with `apply`, apply the stack at once."""
    asked = await _registration(request)
    hosted, actor = hosted_of(request), actor_of(request)

    def work() -> tuple[Registered, bool]:
        with hosted.stack() as stack:
            made = stack.configurations.register(
                _source(asked.config, asked.file),
                asked.name,
                assign=asked.assign,
                on_dropped=asked.on_dropped,
                expected_revision=asked.expected_revision,
                on_conflict=asked.on_conflict,
                actor=actor,
                seal=asked.seal,
            )
            _ = made.plan
            listed = stack.configurations.list()
        return made, any(each.assigned for each in listed if each.name == asked.name)

    registered, assigned = await in_thread(work)
    data = registered_data(registered, assigned=assigned)
    if asked.apply:
        running = await begun(
            hosted, lambda: hosted.apply(actor=actor, require_healthy=asked.require_healthy), asked.wait
        )
        await ended(running)
        data["report"] = report_data(running.report())
    return told(request, data, registered.revision)


@router.get("/v1/configurations/{name}")
async def get(request: Request, name: str, named: Named = None) -> Response:
    """One configuration, registered or shipped."""
    from stackconf.history import shown_configuration

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = stack.revision
            found = shown_configuration(stack.configurations.get(name if named is None else named))
            return told(request, configuration_data(found), revision)

    return await in_thread(work)


@router.delete("/v1/configurations/{name}")
async def unregister(request: Request, name: str, named: Named = None) -> Response:
    """Forget a registered configuration, unassigning it first."""
    return await _change(
        request,
        name if named is None else named,
        "unregistered",
        lambda stack: stack.configurations.unregister,
    )


@router.post("/v1/configurations/{name}/assign")
async def assign(request: Request, name: str, named: Named = None) -> Response:
    """Make a configuration count, above those assigned before."""
    return await _change(
        request, name if named is None else named, "assigned", lambda stack: stack.configurations.assign
    )


@router.post("/v1/configurations/{name}/unassign")
async def unassign(request: Request, name: str, named: Named = None) -> Response:
    """Make a configuration no longer count; it stays available."""
    return await _change(
        request, name if named is None else named, "unassigned", lambda stack: stack.configurations.unassign
    )


async def _change(
    request: Request, name: str, word: str, method: Callable[[Stack], Callable[..., int]]
) -> Response:
    asked = await read_as(request, Expecting)
    expected = expecting(request, asked.expected_revision)

    def work() -> Response:
        with hosted_of(request).stack() as stack:
            revision = method(stack)(
                name,
                actor=actor_of(request),
                expected_revision=expected,
                on_conflict=asked.on_conflict,
            )
            plan = plan_data(stack.plan())
        return told(request, {"name": name, "result": word, "revision": revision, "plan": plan}, revision)

    return await in_thread(work)


async def _registration(request: Request) -> Registration:
    """What `register` is asked: the documented body, or a configuration alone, as JSON or YAML."""
    body = await request.body()
    if media_type(request) in YAML_TYPES:
        asked = from_query(request, Registration, config=_text(body))
    else:
        value = await json_of(body)
        alone = isinstance(value, dict) and not isinstance(value.get("config"), (dict, str))
        asked = checked({"config": value} if alone else value, Registration)
    return asked.model_copy(update={"expected_revision": expecting(request, asked.expected_revision)})


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"the body is not UTF-8: byte {error.start}") from error


def _source(config: dict[str, Any] | str, file: str | None) -> Source:
    """A text is never the name of a file here; `file` is only what the text is called."""
    if isinstance(config, dict):
        return config
    return config.encode() if file is None else Text(config.encode(), file)
