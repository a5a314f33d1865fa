"""What each part of the SDK's surface asks of a server, and how its answer is read.

One place for both clients: the one that waits and the asynchronous one only differ in who sends.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from urllib.parse import quote

from attrs import evolve, field, frozen

from stackconf.errors import AccessDenied, InvalidConfig, StackconfError, Unreachable
from stackconf.shapes.reading import Given, Misshapen

if TYPE_CHECKING:
    from stackconf.choosing import Listed
    from stackconf.comparison import Comparison
    from stackconf.configurations import Registered
    from stackconf.conflicts import OnConflict
    from stackconf.described import DescribedType, ListedProvider, ListedType
    from stackconf.drift import Drift
    from stackconf.errors import PluginLoadError
    from stackconf.export.export import Exported
    from stackconf.given import OnDropped, Source
    from stackconf.hardware.facts import Hardware
    from stackconf.hardware.shares import Share
    from stackconf.history import Difference, History, RolledBack
    from stackconf.plan import Plan
    from stackconf.resolve.claims import Claim
    from stackconf.status import StackStatus
    from stackconf.store.base import Configuration, Pruned, Revision
    from stackconf.store.lastgood import LastGood
    from stackconf.types import Issue, Origin

T = TypeVar("T")

BRIEFLY, AS_LONG_AS_IT_TAKES = 60.0, None
"""Seconds to wait for an answer."""
_FIRST_REDIRECT, _FIRST_ERROR, _FIRST_FAILURE = 300, 400, 500
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND = 401, 403, 404
_HOW = "set STACKCONF_TOKEN or STACKCONF_TOKEN_FILE"
_DEEPEST = 90
"""Levels of nesting of what is sent without being read here first."""


@frozen
class About:
    """Which stack a server hosts. `store` is the id of its store."""

    stack: str
    store: str
    revision: int
    pending: tuple[str, ...] = ()


@frozen
class Explained:
    """A provider with where its values are from, and why it has what it has of the accelerators.

    `share` is `None` where nothing is shared; `has_some` says whether it may use any.
    """

    provider: str
    provider_type: str
    origins: list[Origin]
    share: str | None = None
    has_some: bool = False


@frozen
class Call(Generic[T]):
    """One request, and how to read what comes back. `read` is given the answer's JSON."""

    method: str
    path: str
    read: Callable[[Any], T]
    query: Mapping[str, Any] = field(factory=dict)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    seconds: float | None = BRIEFLY


def _at(prefix: str, name: str, *, safe: str = "") -> tuple[str, dict[str, str]]:
    """The path to what has a name, and the query: it says the names that no path can."""
    parts = name.split("/") if safe else [name]
    if all(part.strip(".") and (safe or "/" not in part) for part in parts):
        return f"{prefix}/{quote(name, safe=safe, errors='replace')}", {}
    return f"{prefix}/-", {"name": name}


def inspect() -> Call[dict[str, Any]]:
    """`configurations.inspect()`."""
    return Call("GET", "/v1/inspect/configurations", dict)


def list_(*, fit: bool) -> Call[list[Listed]]:
    """`configurations.list(fit=...)`."""
    from stackconf.shapes.configurations import listed_from

    def read(data: Any) -> list[Listed]:
        return [listed_from(each) for each in data["configurations"]]

    return Call("GET", "/v1/configurations", read, {"fit": "true"} if fit else {})


def get(name: str) -> Call[Configuration]:
    """`configurations.get(name)`."""
    from stackconf.shapes.configurations import configuration_from

    path, query = _at("/v1/configurations", name)
    return Call("GET", path, configuration_from, query)


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
    from stackconf.given import refuse_name, refuse_on_dropped
    from stackconf.shapes.configurations import registered_from

    refuse_name(name)
    refuse_on_dropped(on_dropped)
    body = {
        **_given(config, name),
        "name": name,
        "assign": assign,
        "on_dropped": on_dropped,
        "seal": seal,
        **_expecting(expected_revision, on_conflict),
    }
    return Call("POST", "/v1/configurations/register", registered_from, body=body)


def _given(config: object, name: str) -> dict[str, Any]:
    """A mapping as it is; a text, or that of the file that a path names, for the server to read.

    What JSON cannot say is read here first, so that it is refused as at home. Raises `InvalidConfig`.
    """
    from stackconf.given import Text, is_path, read_configuration

    if isinstance(config, os.PathLike) or (isinstance(config, str) and is_path(config)):
        from stackconf.stackfile.load import read_bytes

        config = Text(read_bytes(config), os.fspath(config))
    if isinstance(config, Mapping):
        if not _is_plain(config):
            read_configuration(config, name=name)
        return {"config": dict(config)}
    data, file = (config.data, {"file": config.name}) if isinstance(config, Text) else (config, {})
    if isinstance(data, str) and _is_plain(data):
        return {"config": data, **file}
    if isinstance(data, bytes):
        try:
            return {"config": data.decode(), **file}
        except UnicodeDecodeError:
            read_configuration(cast("Source", config), name=name)
            return {"config": data.decode("utf-16"), **file}  # the other one that is read
    read_configuration(cast("Source", config), name=name)
    raise InvalidConfig("the configuration holds half a surrogate pair")


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether JSON says just this, and a server reads it."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= each <= "\udfff" for each in value)
    if value is None or isinstance(value, (bool, int)):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if depth > _DEEPEST:
        return False
    if isinstance(value, Mapping):
        return all(
            isinstance(key, str) and _is_plain(key) and _is_plain(inner, depth + 1)
            for key, inner in value.items()
        )
    return isinstance(value, (list, tuple)) and all(_is_plain(each, depth + 1) for each in value)


def change(action: str, name: str, *, expected_revision: int | None, on_conflict: OnConflict) -> Call[int]:
    """`configurations.assign(name)`, `unassign` or `unregister`: the revision."""
    path, query = _at("/v1/configurations", name)
    method = "DELETE" if action == "unregister" else "POST"
    if action != "unregister":
        path = f"{path}/{action}"
    body = _expecting(expected_revision, on_conflict)
    return Call(method, path, lambda data: int(data["revision"]), query, body)


def _expecting(expected_revision: int | None, on_conflict: OnConflict) -> dict[str, Any]:
    from stackconf.conflicts import Expected

    Expected(expected_revision, on_conflict)  # says what is wrong with them
    expected = {} if expected_revision is None else {"expected_revision": expected_revision}
    return {**expected, "on_conflict": on_conflict}


def hardware(*, recorded: bool = False) -> Call[Hardware]:
    """`hardware`; as a snapshot it says where and when it was `recorded`."""
    from stackconf.shapes.hardware import hardware_from

    return Call("GET", "/v1/inspect/hardware", hardware_from, {"recorded": True} if recorded else {})


def effective() -> Call[dict[str, Any]]:
    """`effective()`."""
    return Call("GET", "/v1/inspect/effective", dict)


def issues() -> Call[tuple[Issue, ...]]:
    """`issues`."""
    from stackconf.shapes.issues import issue_from

    return Call("GET", "/v1/issues", lambda data: tuple(issue_from(each) for each in data["issues"]))


def problems() -> Call[tuple[PluginLoadError, ...]]:
    """`problems`."""
    from stackconf.shapes.errors import error_from

    return Call(
        "GET",
        "/v1/issues",
        lambda data: tuple(cast("PluginLoadError", error_from(each)) for each in data["problems"]),
    )


def explain(provider: str, path: str | None) -> Call[list[Origin]]:
    """`explain(provider, field)`."""
    call = explained(provider, path)
    return Call(call.method, call.path, _origins, call.query)


def explained(provider: str, path: str | None) -> Call[Explained]:
    """The same, with what else a person wants to know of the provider."""
    place, query = _at("/v1/explain", provider, safe="/")
    if path is not None:
        query["field"] = path

    def read(data: Any) -> Explained:
        share = data["share"]
        reason, some = (None, False) if share is None else (str(share["reason"]), bool(share["some"]))
        return Explained(data["provider"], data["provider_type"], _origins(data), reason, some)

    return Call("GET", place, read, query)


def _origins(data: Any) -> list[Origin]:
    from stackconf.shapes.origins import origin_from

    return [origin_from(each) for each in data["origins"]]


def key_of(provider: str) -> Call[str]:
    """`key_of(provider)`."""
    return Call("GET", "/v1/stack", lambda data: str(data["provider"]), {"provider": provider})


def about() -> Call[About]:
    """`name`, `revision` and `pending`, and the id of the store."""

    def read(data: Any) -> About:
        given = Given(data)
        return About(
            given.text("stack"), given.text("store"), given.whole("revision"), given.texts("pending")
        )

    return Call("GET", "/v1/stack", read)


def shares() -> Call[dict[str, Share]]:
    """`shares`."""
    from stackconf.shapes.hardware import shares_from

    return Call("GET", "/v1/inspect/shares", lambda data: shares_from(data["shares"]))


def claims() -> Call[tuple[Claim, ...]]:
    """What fields of the providers take of the accelerators."""
    from stackconf.shapes.hardware import claims_from

    return Call("GET", "/v1/inspect/shares", lambda data: claims_from(data["claims"]))


def providers() -> Call[tuple[ListedProvider, ...]]:
    """`providers()`."""
    from stackconf.shapes.types import listed_provider_from

    return Call(
        "GET", "/v1/inspect/providers", lambda data: Given(data).each("providers", listed_provider_from)
    )


def provider_types() -> Call[tuple[ListedType, ...]]:
    """`provider_types()`."""
    from stackconf.shapes.types import listed_type_from

    return Call("GET", "/v1/provider-types", lambda data: Given(data).each("types", listed_type_from))


def provider_type(name: str) -> Call[DescribedType]:
    """`provider_type(name)`."""
    from stackconf.shapes.types import type_from

    return Call("GET", "/v1/inspect/provider-type", type_from, {"name": name})


def compare(machines: Mapping[str, Hardware]) -> Call[Comparison]:
    """`compare(machines)`."""
    from stackconf.shapes.comparisons import comparison_from
    from stackconf.shapes.hardware import hardware_data

    body = {"machines": {name: hardware_data(each) for name, each in machines.items()}}
    return Call("POST", "/v1/compare", comparison_from, body=body)


def prune(keep: int) -> Call[Pruned]:
    """`prune(keep)`."""
    from stackconf.shapes.history import pruned_from

    return Call("POST", "/v1/history/prune", pruned_from, body={"keep": keep})


def plan() -> Call[Plan]:
    """`plan()`."""
    from stackconf.shapes.plans import plan_from

    return Call("GET", "/v1/plan", plan_from)


def planned() -> Call[tuple[Plan, str, str]]:
    """`plan()`, with the stack's name and the id of the store that it is for."""
    from stackconf.shapes.plans import plan_from

    def read(data: Any) -> tuple[Plan, str, str]:
        given = Given(data)
        return plan_from(data), given.text("stack"), given.text("store")

    return Call("GET", "/v1/plan", read)


def with_facts(plan: Plan, hardware: Hardware) -> Plan:
    """The plan with the facts behind its fingerprint, where they are these."""
    from stackconf.hardware.discovery import fingerprint

    return evolve(plan, hardware=hardware) if fingerprint(hardware) == plan.hardware_fingerprint else plan


def apply(plan: Plan | None, *, require_healthy: bool, wait: float) -> dict[str, Any]:
    """The body that asks for an apply."""
    from stackconf.shapes.hardware import hardware_data
    from stackconf.shapes.plans import plan_data

    made: dict[str, Any] = {} if plan is None else {"plan": plan_data(plan)}
    if plan is not None and plan.hardware is not None:
        from stackconf.hardware.discovery import static

        made["facts"] = hardware_data(static(plan.hardware))
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

    path, query = _at("/v1/revisions", str(revision))
    return Call("GET", path, revision_from, query)


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

    from stackconf.shapes.errors import CONTENT_TYPE, error_from

    try:
        data = json.loads(content) if "json" in media_type else None
    except ValueError:
        data = None
    if status >= _FIRST_ERROR and isinstance(data, dict) and media_type.startswith(CONTENT_TYPE):
        if "/problems/" not in str(data.get("type")):
            raise _plain(status, str(data.get("detail") or data.get("title") or ""), call, url)
        error = error_from(data)
        raise AccessDenied(f"{error}; {_HOW}") if status == _UNAUTHORIZED else error
    if data is None or status >= _FIRST_REDIRECT:
        raise _stranger(status, media_type, url)
    try:
        return call.read(data)
    except (Misshapen, KeyError, TypeError, ValueError, AttributeError) as error:
        why = error.problem if isinstance(error, Misshapen) else repr(error)
        raise Unreachable(f"{url} answered what this stackconf cannot read: {why}") from error


def _plain(status: int, detail: str, call: Call[Any], url: str) -> StackconfError:
    """What a server said that is no exception of a stack: about the request, not about the stack."""
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        return AccessDenied(detail or f"{url} refused the request")
    if status == _NOT_FOUND:
        return Unreachable(f"{url} does not know {call.path}; is it another version of stackconf?")
    return StackconfError(f"{url} refused the request ({status}): {detail}")


def _stranger(status: int, media_type: str, url: str) -> StackconfError:
    """What an answer comes to that no stackconf server gives."""
    kind = media_type.partition(";")[0] or "nothing"
    if status in {_UNAUTHORIZED, _FORBIDDEN}:
        return AccessDenied(f"{url} refused the request ({status}); {_HOW}")
    if status >= _FIRST_FAILURE:
        return Unreachable(f"{url} answered {status}, {kind}: a proxy that does not reach its server?")
    more = ", which leads elsewhere" if _FIRST_REDIRECT <= status < _FIRST_ERROR else ""
    return Unreachable(f"{url} is no stackconf server: it answered {status}, {kind}{more}")
