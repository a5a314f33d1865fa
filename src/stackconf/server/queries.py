"""What may stand in a query: the parameters of the route, each once. A misspelt one is not passed over."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from starlette.requests import Request  # noqa: TC002 (FastAPI reads it)

from stackconf.errors import InvalidConfig
from stackconf.server.asked import YAML_TYPES, media_type
from stackconf.suggest import did_you_mean
from stackconf.types import Issue

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_NAME = 80


async def known_query(request: Request) -> None:
    """Raise `InvalidConfig` for what the route does not read, or reads once and was given twice.

    Where the body is YAML the query says what is to be done with it, and is looked at with it.
    """
    if not request.query_params or media_type(request) in YAML_TYPES:
        return
    dependant = getattr(request.scope.get("route"), "dependant", None)
    known = [each.alias for each in getattr(dependant, "query_params", ())]
    issues = query_issues([name for name, _ in request.query_params.multi_items()], known)
    if issues:
        raise InvalidConfig.of(issues)


def query_issues(given: Iterable[str], known: Iterable[str]) -> list[Issue]:
    """What is wrong with the names in a query.

    >>> for each in query_issues(["limt", "limit", "limit"], ["limit"]):
    ...     print(each)
    error: limt: the query has no such parameter; did you mean `limit`?
    error: limit: the query has it twice
    """
    times, known = Counter(given), list(known)
    issues = []
    for name, count in times.items():
        shown = name.encode("unicode_escape").decode("ascii")[:_LONGEST_NAME]
        if name not in known:
            hint = did_you_mean(name, known) if known else "it has none here"
            hint = hint or f"it has {', '.join(known)}"
            issues.append(Issue("the query has no such parameter", path=shown, hint=hint, code="bad-query"))
        elif count > 1:
            issues.append(Issue("the query has it twice", path=shown, code="bad-query"))
    return issues
