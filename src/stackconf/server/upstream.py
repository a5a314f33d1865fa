"""What upstream's clients ask for, in upstream's shapes: providers, health, version, routes.

The shapes are those of llama-stack 0.2.12 (`apis/providers/providers.py`, `apis/inspect/inspect.py`)
and OGX 1.5.0 (`ogx_api/admin/models.py`), which are the same. What differs from upstream's answers:
the configuration is the effective one and not the one typed in, an id that several apis use can be
asked for by `api/provider_id`, and one that nobody has is 404 and not 400.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from stackconf.errors import UnknownName
from stackconf.resolve.render import SHOWN
from stackconf.suggest import did_you_mean, known

if TYPE_CHECKING:
    from stackconf.stack import Stack
    from stackconf.status import ProviderStatus
    from stackconf.types import Provider

HealthStatus: TypeAlias = Literal["OK", "Error", "Not Implemented"]
"""Upstream's three words. The last one stands for what nobody can tell."""

Info: TypeAlias = dict[str, Any]
"""Upstream's `ProviderInfo`: `api`, `provider_id`, `provider_type`, `config`, `health`."""

Level: TypeAlias = Literal["v1", "v1alpha", "v1beta", "deprecated"]
"""Upstream's `api_filter`: the routes of one level, or those that are to go."""

_FAILURES = {"failed", "pending"}
_UNTOLD: Mapping[str, tuple[HealthStatus, str]] = {
    "not managed": ("Not Implemented", "no plugin knows its type, so it is left alone"),
    "applying": ("Not Implemented", "an apply is at it"),
}


def providers(stack: Stack) -> list[Info]:
    """Every provider of a stack in the file's order, then those that run and are in the file no more.

    `config` is the whole effective configuration, secrets redacted, `{}` where there is none.
    """
    errors: dict[str, str] = {}
    for issue in stack.resolution.errors:
        errors.setdefault(issue.provider, str(issue))
    status = stack.status()
    standing = {each.provider: each for each in status.providers}
    infos = [
        info(
            resolved.provider,
            {} if resolved.config is None else SHOWN.render(resolved.config),
            health(standing[key], errors.get(key, "")),
        )
        for key, resolved in stack.resolution.providers.items()
    ]
    if leaving := status.of("to leave"):
        from stackconf.plan import shown

        records = stack.applied().providers
        infos += [
            info(record.provider, shown(record.snapshot), health(each))
            for each in leaving
            if (record := records.get(each.provider)) is not None
        ]
    return infos


def info(provider: Provider, config: Mapping[str, Any], health: Mapping[str, str]) -> Info:
    """One provider, as upstream tells of it.

    >>> from stackconf.types import Provider
    >>> info(Provider("inference", "ollama", "remote::ollama"), {"port": 1}, {"status": "OK"})["provider_id"]
    'ollama'
    """
    return {
        "api": provider.api,
        "provider_id": provider.provider_id,
        "provider_type": provider.provider_type,
        "config": dict(config),
        "health": dict(health),
    }


def health(each: ProviderStatus, error: str = "") -> dict[str, str]:
    """How a provider is, as far as it is known: how its last apply went, not a look at it now.

    `error` is what is wrong with its configuration.

    >>> from stackconf.status import ProviderStatus
    >>> health(ProviderStatus("inference/a", "applied", 3, None, 3))
    {'status': 'OK', 'message': 'runs with revision 3'}
    >>> health(ProviderStatus("inference/a", "to apply", 3, None, 2))
    {'status': 'OK', 'message': 'runs with revision 2; an apply would change it to revision 3'}
    >>> health(ProviderStatus("inference/a", "to apply", 3))
    {'status': 'Error', 'message': 'nothing is applied to it yet'}
    """
    told = _UNTOLD.get(each.standing) or _told(each, error)
    return {"status": told[0], "message": told[1]}


def _told(each: ProviderStatus, error: str) -> tuple[HealthStatus, str]:
    runs = "nothing is applied to it yet" if each.applied is None else f"runs with revision {each.applied}"
    tried = each.tried
    why = tried.error.removeprefix(f"{each.provider}: ") if tried else ""
    if each.standing == "unknown":
        return "Error", f"nobody knows what it runs with: {why or 'an apply of it did not end'}"
    if each.standing == "invalid":
        return "Error", f"{error or 'its configuration is invalid'}; {runs}"
    if each.standing == "to leave":
        return "OK", f"{runs}; it is in the stack file no more, and an apply would end it"
    if each.standing == "applied":
        return "OK", runs + (f", applied at {tried.at}" if tried and tried.state == "applied" else "")
    return _to_apply(each, runs, why)


def _to_apply(each: ProviderStatus, runs: str, why: str) -> tuple[HealthStatus, str]:
    if each.tried is not None and each.tried.state in _FAILURES and each.tried.revision == each.desired:
        return "Error", f"{each.tried.state}: {why}; {runs}"
    if each.applied is None:
        return "Error", runs
    to = f" to revision {each.desired}" if each.desired != each.applied else ""
    return "OK", f"{runs}; an apply would change it{to}"


def chosen(infos: Sequence[Info], name: str, api: str | None = None) -> Info:
    """The provider that is asked for by its id or by `api/provider_id`.

    Several apis may use one id. Then it is the first one, as with upstream, and `same_id` names the
    others as they can be asked for; `api` picks one. Raises `UnknownName`.

    >>> a, b = ({"api": api, "provider_id": "meta"} for api in ("agents", "telemetry"))
    >>> chosen([a, b], "meta")
    {'api': 'agents', 'provider_id': 'meta', 'same_id': ['telemetry/meta']}
    >>> chosen([a, b], "telemetry/meta") == chosen([a, b], "meta", "telemetry") == b
    True
    """
    asked = [each for each in infos if api is None or each["api"] == api]
    found = [each for each in asked if each["provider_id"] == name]
    found += [each for each in asked if _key(each) == name]
    if not found:
        keys = [_key(each) for each in asked] or [_key(each) for each in infos]
        wanted = name if api is None or "/" in name else f"{api}/{name}"
        hint = did_you_mean(wanted, [*keys, *(each["provider_id"] for each in asked)])
        raise UnknownName(f"no provider `{wanted}` in the stack; {hint or known(keys)}")
    first, *others = found
    return {**first, "same_id": [_key(each) for each in others]} if others else first


def _key(each: Info) -> str:
    return f"{each['api']}/{each['provider_id']}"


def routes(paths: Iterable[tuple[str, str]], level: Level | None = None) -> list[dict[str, Any]]:
    """Upstream's `RouteInfo` for each path and method. None of them is a provider's own.

    >>> routes([("/v1/providers", "GET"), ("/v1alpha/admin/health", "GET")], "v1alpha")
    [{'route': '/v1alpha/admin/health', 'method': 'GET', 'provider_types': []}]
    """
    return [
        {"route": path, "method": method, "provider_types": []}
        for path, method in paths
        if level is None or path.startswith(f"/{level}/")
    ]
