"""What each part of the SDK's surface asks of a server, and how its answer is read.

One place for both clients: the one that waits and the asynchronous one only differ in who sends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from attrs import field, frozen

from stackconf.errors import InvalidConfig, StackconfError

if TYPE_CHECKING:
    from stackconf.configurations import Listed, OnDropped, Registered
    from stackconf.conflicts import OnConflict
    from stackconf.drift import Drift
    from stackconf.export.export import Exported
    from stackconf.given import Source
    from stackconf.hardware.facts import Hardware
    from stackconf.history import Difference, History, RolledBack
    from stackconf.plan import Plan
    from stackconf.status import StackStatus
    from stackconf.store.base import Configuration, Revision
    from stackconf.store.lastgood import LastGood
    from stackconf.types import Issue, Origin

T = TypeVar("T")

BRIEFLY, AS_LONG_AS_IT_TAKES = 60.0, None
"""Seconds to wait for an answer."""
_FIRST_REDIRECT, _FIRST_ERROR = 300, 400


@frozen
class Call(Generic[T]):
    """One request, and how to read what comes back. `read` is given the answer's JSON."""

    method: str
    path: str
    read: Callable[[Any], T]
    query: Mapping[str, Any] = field(factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    seconds: float | None = BRIEFLY


def _segment(name: object) -> str:
    return quote(str(name), safe="")


def inspect() -> Call[dict[str, Any]]:
    """`configurations.inspect()`."""
    return Call("GET", "/v1/inspect/configurations", dict)


def list_() -> Call[list[Listed]]:
    """`configurations.list()`."""
    from stackconf.shapes.configurations import listed_from

    return Call(
        "GET", "/v1/configurations", lambda data: [listed_from(each) for each in data["configurations"]]
    )


def get(name: str) -> Call[Configuration]:
    """`configurations.get(name)`."""
    from stackconf.shapes.configurations import configuration_from

    return Call("GET", f"/v1/configurations/{_segment(name)}", configuration_from)


def register(
    config: Source,
    name: str,
    *,
    assign: bool,
    on_dropped: OnDropped,
    expected_revision: int | None,
    on_conflict: OnConflict,
    seal: bool,
) -> Call[Registered]:
    """`configurations.register(config, name)`."""
    from stackconf.shapes.configurations import registered_from

    body = {
        "config": _given(config),
        "name": name,
        "assign": assign,
        "on_dropped": on_dropped,
        "seal": seal,
        **_expecting(expected_revision, on_conflict),
    }
    return Call("POST", "/v1/configurations/register", registered_from, body=body)


def _given(config: object) -> object:
    """A mapping as it is; a text, or that of the file that a path names, for the server to read."""
    if isinstance(config, Mapping):
        return dict(config)
    from stackconf.given import is_path

    if isinstance(config, os.PathLike) or (isinstance(config, str) and is_path(config)):
        path = Path(config)
        try:
            config = path.read_bytes()
        except OSError as error:
            raise InvalidConfig(f"{path}: {error.strerror or error}") from error
    if isinstance(config, bytes):
        try:
            return config.decode()
        except UnicodeDecodeError as error:
            raise InvalidConfig(f"the configuration is not UTF-8: byte {error.start}") from error
    if not isinstance(config, str):
        kind = type(config).__name__
        raise InvalidConfig(f"a configuration is a mapping, a text or a path, not {kind}")
    return config


def change(action: str, name: str, *, expected_revision: int | None, on_conflict: OnConflict) -> Call[int]:
    """`configurations.assign(name)`, `unassign` or `unregister`: the revision."""
    path = f"/v1/configurations/{_segment(name)}"
    method = "DELETE" if action == "unregister" else "POST"
    if action != "unregister":
        path = f"{path}/{action}"
    body = _expecting(expected_revision, on_conflict)
    return Call(method, path, lambda data: int(data["revision"]), body=body)


def _expecting(expected_revision: int | None, on_conflict: OnConflict) -> dict[str, Any]:
    if expected_revision is None:
        return {}
    return {"expected_revision": expected_revision, "on_conflict": on_conflict}


def hardware() -> Call[Hardware]:
    """`hardware`."""
    from stackconf.shapes.hardware import hardware_from

    return Call("GET", "/v1/inspect/hardware", hardware_from)


def effective() -> Call[dict[str, Any]]:
    """`effective()`."""
    return Call("GET", "/v1/inspect/effective", dict)


def issues() -> Call[tuple[Issue, ...]]:
    """`issues`."""
    from stackconf.shapes.issues import issue_from

    return Call("GET", "/v1/issues", lambda data: tuple(issue_from(each) for each in data["issues"]))


def explain(provider: str, path: str | None) -> Call[list[Origin]]:
    """`explain(provider, field)`."""
    from stackconf.shapes.origins import origin_from

    query = {} if path is None else {"field": path}
    return Call(
        "GET",
        f"/v1/explain/{quote(provider, safe='/')}",
        lambda data: [origin_from(each) for each in data["origins"]],
        query,
    )


def key_of(provider: str) -> Call[str]:
    """`key_of(provider)`."""
    return Call("GET", f"/v1/explain/{quote(provider, safe='/')}", lambda data: str(data["provider"]))


def revision() -> Call[int]:
    """`revision`."""
    return Call("GET", "/v1/configurations", lambda data: int(data["revision"]))


def plan() -> Call[Plan]:
    """`plan()`."""
    from stackconf.shapes.plans import plan_from

    return Call("GET", "/v1/plan", plan_from)


def apply(plan: Plan | None, *, require_healthy: bool, wait: float) -> dict[str, Any]:
    """The body that asks for an apply."""
    from stackconf.shapes.plans import plan_data

    made = {} if plan is None else {"plan": plan_data(plan)}
    return {**made, "require_healthy": require_healthy, "wait": wait}


def status() -> Call[StackStatus]:
    """`status()`."""
    from stackconf.shapes.status import status_from

    return Call("GET", "/v1/status", status_from)


def drift() -> Call[Drift]:
    """`drift()`."""
    from stackconf.shapes.drift import drift_from

    return Call("GET", "/v1/drift", drift_from)


def applied() -> Call[LastGood]:
    """`applied()`."""
    from stackconf.shapes.applied import applied_from

    return Call("GET", "/v1/applied", applied_from)


def export(*, applied: bool, class_defaults: bool) -> Call[Exported]:
    """`export()`."""
    from stackconf.shapes.exports import export_from

    query = {"applied": applied, "class_defaults": class_defaults}
    return Call("GET", "/v1/export", export_from, query)


def history(limit: int | None) -> Call[History]:
    """`history(limit=...)`."""
    from stackconf.shapes.history import history_from

    return Call("GET", "/v1/history", history_from, {} if limit is None else {"limit": limit})


def show(revision: int | str) -> Call[Revision]:
    """`show(revision)`."""
    from stackconf.shapes.history import revision_from

    return Call("GET", f"/v1/revisions/{_segment(revision)}", revision_from)


def diff(before: int | str, after: int | str, *, effective: bool) -> Call[Difference]:
    """`diff(before, after)`."""
    from stackconf.shapes.history import difference_from

    query = {"before": before, "after": after, "effective": effective}
    return Call("GET", "/v1/diff", difference_from, query)


def rollback(revision: int | str, expected_revision: int | None) -> Call[RolledBack]:
    """`rollback(revision)`."""
    from stackconf.shapes.history import rolled_back_from

    body = {"revision": revision}
    if expected_revision is not None:
        body["expected_revision"] = expected_revision
    return Call("POST", "/v1/rollback", rolled_back_from, body=body)


def read(call: Call[T], status: int, content: bytes, media_type: str, url: str) -> T:
    """What an answer says. Raises the exception that it carries, or `Unreachable` for an answer that
    no stackconf server gives.
    """
    import json

    from stackconf.errors import AccessDenied, Unreachable
    from stackconf.shapes.errors import error_from

    try:
        data = json.loads(content) if "json" in media_type else None
    except ValueError:
        data = None
    if status in {401, 403} and not (isinstance(data, dict) and "/problems/" in str(data.get("type"))):
        said = data.get("detail") if isinstance(data, dict) else None
        raise AccessDenied(str(said or f"{url} refused the request ({status})"))
    if isinstance(data, dict) and status >= _FIRST_ERROR:
        raise error_from(data)
    if data is None or status >= _FIRST_REDIRECT:
        raise Unreachable(f"{url} is no stackconf server: it answered {status}, {media_type or 'nothing'}")
    try:
        return call.read(data)
    except StackconfError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreachable(f"{url} answered what this stackconf cannot read: {error!r}") from error
