"""Errors as problem details (RFC 9457), so that a client raises what the server's stack raised.

`type` names the class, `detail` is the error's own line, and the rest of its attributes are members
beside them. The statuses:

- `Sealed` is 403: the request is understood and refused, and repeating it cannot help, which 409
  would invite to.
- `ApplyError`, `HookError` and `PluginLoadError` are 500: what failed runs inside this server. 502
  and 504 are what proxies say of a server that they cannot reach, and some replace their bodies.
- `ApplyBusy` is 409 with `Retry-After`: the request is fine, and soon will be possible.
- `Conflict` is 412 where the request had an `If-Match`, and 409 where it gave the revision otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from attrs import frozen

from stackconf.errors import (
    AccessDenied,
    ApplyBusy,
    ApplyError,
    Conflict,
    HookError,
    InvalidConfig,
    PluginLoadError,
    RevisionLost,
    Sealed,
    SecretError,
    StackconfError,
    StalePlan,
    StoreDamaged,
    StoreError,
    UnknownName,
    Unreachable,
)
from stackconf.shapes.issues import issue_from, issues_data
from stackconf.shapes.reading import Given, Misshapen

if TYPE_CHECKING:
    from stackconf.apply import Report

PREFIX = "/problems/"
"""What `type` begins with. Only what follows the last slash counts: a server may be below another path."""

CONTENT_TYPE = "application/problem+json"
RETRY_SECONDS = 1
_PRECONDITION_FAILED = 412

Members: TypeAlias = Callable[[Any], dict[str, Any]]
Build: TypeAlias = Callable[[Given, str], StackconfError]


@frozen
class Problem:
    """How one class of error is told."""

    name: str
    title: str
    status: int
    build: Build
    members: Members = lambda _error: {}


def error_data(error: StackconfError, *, if_match: bool = False) -> dict[str, Any]:
    """An error as problem details. `if_match` says that the request had an `If-Match`."""
    problem = problem_of(error)
    return {
        "type": f"{PREFIX}{problem.name}",
        "title": problem.title,
        "status": status_of(error, if_match=if_match),
        "detail": str(error),
        **problem.members(error),
    }


def status_of(error: StackconfError, *, if_match: bool = False) -> int:
    """The HTTP status of an error."""
    if if_match and isinstance(error, Conflict):
        return _PRECONDITION_FAILED
    return problem_of(error).status


def headers_of(error: StackconfError) -> dict[str, str]:
    """The HTTP headers that belong to an error."""
    return {"Retry-After": str(RETRY_SECONDS)} if isinstance(error, ApplyBusy) else {}


def members_of(error: StackconfError) -> dict[str, Any]:
    """What an error carries beside its line."""
    return problem_of(error).members(error)


def error_from(data: object) -> StackconfError:
    """The error that `error_data` was given, to be raised. Of a type that is not known here, and of
    problem details from someone else (a proxy), it is a `StackconfError` with the detail.
    """
    given = Given(data)
    detail = given.text("detail") if given.data.get("title") is None else given.some_text("detail")
    name = given.some_text("type").rpartition("/")[2]
    problem = next((each for each in PROBLEMS.values() if each.name == name), None)
    if problem is None:
        return StackconfError(detail or given.some_text("title"))
    try:
        error = problem.build(given, detail)
    except Misshapen as wrong:
        raise StackconfError(f"{detail} ({wrong})") from wrong
    error.args = (detail,)  # its line is what the server said, whichever version made it
    return error


def problem_of(error: StackconfError) -> Problem:
    """How an error is told: as its class, or as the nearest one above it that is known."""
    return next(PROBLEMS[each] for each in type(error).__mro__ if each in PROBLEMS)


def _plain(kind: Callable[[str], StackconfError]) -> Build:
    return lambda _given, detail: kind(detail)


def _issues(error: InvalidConfig) -> dict[str, Any]:
    return {"issues": issues_data(error.issues)}


def _attributes(*names: str) -> Members:
    return lambda error: {name: getattr(error, name) for name in names}


def _plugin_load_error(given: Given, _detail: str) -> StackconfError:
    return PluginLoadError(given.text("plugin"), given.text("problem"), **_texts(given, _DISTRIBUTION))


def _hook_error(given: Given, _detail: str) -> StackconfError:
    more = _texts(given, (*_DISTRIBUTION, "provider"))
    return HookError(given.text("hook"), given.text("plugin"), given.text("problem"), **more)


def _texts(given: Given, names: Iterable[str]) -> Mapping[str, Any]:
    return {name: given.text(name) for name in names}


_DISTRIBUTION = ("distribution", "version")


def _conflict(given: Given, _detail: str) -> StackconfError:
    from stackconf.shapes.history import conflict_from, summary_from

    return Conflict(
        given.whole("expected"),
        given.whole("head"),
        given.each("conflicts", conflict_from),
        given.each("since", summary_from),
        problem=given.text("problem"),
        mergeable=given.flag("mergeable"),
    )


def _conflict_members(error: Conflict) -> dict[str, Any]:
    from stackconf.shapes.history import conflict_data, summary_data

    return {
        "expected": error.expected,
        "head": error.head,
        "since": [summary_data(each) for each in error.since],
        "conflicts": [conflict_data(each) for each in error.conflicts],
        "problem": error.problem,
        "mergeable": error.mergeable,
    }


def _apply_error(given: Given, detail: str) -> StackconfError:
    from stackconf.shapes.reports import report_from

    return ApplyError(detail, given.one("report", report_from))


def _apply_error_members(error: ApplyError) -> dict[str, Any]:
    from stackconf.shapes.reports import report_data

    return {"report": report_data(cast("Report", error.report))}


PROBLEMS: Mapping[type[StackconfError], Problem] = {
    InvalidConfig: Problem(
        "invalid-config",
        "The configuration is wrong",
        422,
        lambda given, detail: InvalidConfig(detail, given.each("issues", issue_from)),
        _issues,
    ),
    UnknownName: Problem("unknown-name", "There is nothing of that name", 404, _plain(UnknownName)),
    HookError: Problem(
        "hook-error",
        "A plugin failed",
        500,
        _hook_error,
        _attributes("hook", "plugin", "problem", *_DISTRIBUTION, "provider"),
    ),
    PluginLoadError: Problem(
        "plugin-load-error",
        "A plugin cannot be used",
        500,
        _plugin_load_error,
        _attributes("plugin", "problem", *_DISTRIBUTION),
    ),
    Conflict: Problem("conflict", "Another change came first", 409, _conflict, _conflict_members),
    ApplyBusy: Problem("apply-busy", "Another apply is running", 409, _plain(ApplyBusy)),
    StoreDamaged: Problem(
        "store-damaged",
        "The store is damaged",
        503,
        lambda given, _: StoreDamaged(given.text("path"), given.text("problem"), given.text("hint")),
        _attributes("path", "problem", "hint"),
    ),
    RevisionLost: Problem(
        "revision-lost",
        "The revision is lost",
        410,
        lambda given, _: RevisionLost(given.whole("revision"), given.text("why")),
        _attributes("revision", "why"),
    ),
    StoreError: Problem("store-error", "The store cannot be used", 503, _plain(StoreError)),
    StalePlan: Problem(
        "stale-plan",
        "The plan is stale",
        409,
        lambda given, _: StalePlan(given.texts("moved")),
        lambda error: {"moved": [*error.moved]},
    ),
    SecretError: Problem(
        "secret-error",
        "A secret cannot be sealed or opened",
        422,
        lambda given, _: SecretError(given.text("problem"), given.text("hint")),
        _attributes("problem", "hint"),
    ),
    Sealed: Problem("sealed", "The stack is sealed", 403, _plain(Sealed)),
    ApplyError: Problem("apply-error", "The apply failed", 500, _apply_error, _apply_error_members),
    Misshapen: Problem(
        "misshapen",
        "What was sent cannot be read",
        422,
        lambda given, _: Misshapen(given.text("problem"), given.text("where")),
        _attributes("problem", "where"),
    ),
    AccessDenied: Problem("access-denied", "Access denied", 403, _plain(AccessDenied)),
    Unreachable: Problem("unreachable", "The server cannot be reached", 502, _plain(Unreachable)),
    StackconfError: Problem("error", "Something is wrong", 500, _plain(StackconfError)),
}
"""Every class of the tree, in its own words."""
