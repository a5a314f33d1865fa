"""What a request asks: its body, the revision that it expects, who asks, and for how long to wait."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from stackconf.errors import InvalidConfig
from stackconf.server.body import read_json
from stackconf.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.requests import Request

ACTOR_HEADER = "stackconf-actor"
_TAG = re.compile(r'(?:W/)?"(\d+)(?:-[0-9a-f]*)?"')
_LONGEST_ACTOR = 100


async def read_object(request: Request, known: Collection[str] = ()) -> dict[str, Any]:
    """The body's JSON object; an empty body is an empty one. Raises `InvalidConfig`, also for a key
    that is not among the `known`, where those are given.
    """
    body = await request.body()
    if not body.strip():
        return {}
    value = read_json(body)
    if not isinstance(value, dict):
        raise InvalidConfig("the body is a JSON object, and not something else")
    if known:
        refuse_unknown(value, known)
    return value


def refuse_unknown(value: Collection[str], known: Collection[str]) -> None:
    """Raise `InvalidConfig` for a key that nobody would read."""
    for key in value:
        if key not in known:
            hint = did_you_mean(key, known) or f"it has {', '.join(known)}"
            raise InvalidConfig(f"the body has no `{key[:80]}`; {hint}")


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
    """Who asks: what the caller says, and under which token."""
    said = request.headers.get(ACTOR_HEADER, "")
    said = "".join(each for each in said if each.isprintable())[:_LONGEST_ACTOR].strip()
    token = getattr(request.state, "token", None)
    if token is None:
        return said or "http"
    return f"{said} ({token})" if said and said != token else str(token)
