"""What a request asks: its body, the revision that it expects, who asks, and for how long to wait."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from stackconf.errors import InvalidConfig
from stackconf.server.body import read_json
from stackconf.server.threads import in_thread
from stackconf.suggest import did_you_mean
from stackconf.types import Issue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

M = TypeVar("M", bound=BaseModel)

YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")
ACTOR_HEADER = "stackconf-actor"
_TAG = re.compile(r'(?:W/)?"([0-9]{1,18})(?:-[0-9a-f]*)?"')
_LONGEST_ACTOR = 100
_NO_PARENTHESES = str.maketrans("()", "[]")
_LONGEST_PATH = 200
_SMALL = 64 * 2**10


async def read_as(request: Request, model: type[M]) -> M:
    """The body as one of the documented ones; an empty body says nothing. Raises `InvalidConfig` with
    every issue, also for a key that nobody would read.
    """
    if media_type(request) in YAML_TYPES:
        raise HTTPException(415, "the body is application/json here")
    return checked(await json_of(await request.body() or b"{}"), model)


async def json_of(body: bytes) -> Any:
    """The value that a body says; a large one keeps nobody else waiting. Raises as `read_json` does."""
    return await in_thread(lambda: read_json(body)) if len(body) > _SMALL else read_json(body)


def media_type(request: Request) -> str:
    """The type of the body, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def from_query(request: Request, model: type[M], **more: object) -> M:
    """The query as a documented body, where the body is something else. Raises as `checked` does."""
    return checked({**request.query_params, **more}, model, strict=False)


def checked(value: object, model: type[M], *, strict: bool = True) -> M:
    """A value as a documented body. Raises `InvalidConfig` with every issue.

    >>> from stackconf.server.documents import Recover
    >>> checked({"wait": 5}, Recover).wait
    5.0
    >>> checked({"wiat": 5}, Recover)
    Traceback (most recent call last):
    ...
    stackconf.errors.InvalidConfig: error: wiat: the body has no such key; did you mean `wait`?
    """
    if not isinstance(value, dict):
        raise InvalidConfig("the body is a JSON object, and not something else")
    try:
        return model.model_validate(value, strict=strict)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidConfig.of([_issue(each, model) for each in found]) from None


def _issue(error: Mapping[str, Any], model: type[BaseModel]) -> Issue:
    path = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        return Issue(str(error["msg"]).lower(), path=path[:_LONGEST_PATH], code="bad-body")
    hint = ""
    if len(error["loc"]) == 1:
        hint = did_you_mean(path, model.model_fields) or f"it has {', '.join(model.model_fields)}"
    return Issue("the body has no such key", path=path[:_LONGEST_PATH], hint=hint, code="bad-body")


def expected_revision(request: Request) -> int | None:
    """The revision of `If-Match`, `None` where it is not given, or is `*`.

    Every entity tag that this server gives begins with the revision that it is of. Raises
    `InvalidConfig` for one that is not from here.
    """
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    tag = _TAG.fullmatch(given.strip())
    if tag is None:
        raise InvalidConfig('If-Match is one ETag of this server, such as "12", or *')
    return int(tag[1])


def expecting(request: Request, said: int | None) -> int | None:
    """The revision that a change is for, by `If-Match` or by the body. Raises `InvalidConfig` where they
    name two.
    """
    revision = expected_revision(request)
    if revision is None or said is None:
        return said if revision is None else revision
    if revision != said:
        raise InvalidConfig("If-Match and `expected_revision` name two revisions; give one")
    return revision


def is_known(request: Request, etag: str) -> bool:
    """Whether `If-None-Match` says that the caller has it already."""
    return has(request.headers.get("if-none-match"), etag)


def has(given: str | None, etag: str) -> bool:
    """Whether an `If-None-Match` has an entity tag.

    >>> has('"1-aa", W/"2-bb"', '"2-bb"'), has("*", '"2-bb"'), has(None, '"2-bb"')
    (True, True, False)
    """
    if given is None:
        return False
    if given == etag:
        return True
    return given.strip() == "*" or etag in {each.strip().removeprefix("W/") for each in given.split(",")}


def actor_of(request: Request) -> str:
    """Who asks: what the caller says, and under which token.

    What is in parentheses at the end is always the name of a token; nobody can say it themselves.
    """
    said = actor_said(request.headers.get(ACTOR_HEADER, ""))
    token = getattr(request.state, "token", None)
    if token is None:
        return said or "http"
    return f"{said} ({token})" if said and said != token else str(token)


def actor_said(header: str) -> str:
    r"""What `Stackconf-Actor` says, on one line, not too long, and without parentheses.

    >>> actor_said("alice (admin)\x1b[31m")
    'alice [admin][31m'
    """
    text = header.encode("latin-1", "replace").decode("utf-8", "replace")
    said = "".join(each for each in text if each.isprintable())[:_LONGEST_ACTOR].strip()
    return said.translate(_NO_PARENTHESES)
