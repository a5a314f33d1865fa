"""What is applied, and where that is from.

The configurations stand in the stack file's shape, as people see them: of a secret only that it is
set. Its keyed digest stays in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from stackconf.packing import spelled
from stackconf.shapes.configurations import says_from
from stackconf.shapes.providers import provider_data, provider_from
from stackconf.shapes.reading import Given, Misshapen, choice

if TYPE_CHECKING:
    from stackconf.plan import AppliedRecord
    from stackconf.store.lastgood import LastGood
    from stackconf.types import Provider

_SOURCE = Literal["store", "file"]


def applied_data(applied: LastGood) -> dict[str, Any]:
    """What is applied. `known` says whether a provider runs with it for sure, `ran_before` whether it
    ran at all when that was last known.
    """
    return {
        **spelled(applied.configuration()),
        "applied": {key: _record_data(record) for key, record in applied.providers.items()},
        "head": applied.head,
        "attempt": applied.attempt,
        "at": applied.at,
        "stack_digest": applied.stack_digest,
        "store": applied.store,
        "source": applied.source,
        "path": applied.path,
        "problem": applied.problem,
    }


def applied_from(data: object) -> LastGood:
    """What `applied_data` wrote."""
    from stackconf.store.lastgood import LastGood

    given = Given(data)
    configs = _configs(given.one("providers", says_from))
    found = given.named("applied", lambda each: _record_from(each, configs))
    return LastGood(
        found,
        given.whole("head"),
        given.whole("attempt"),
        given.text("at"),
        given.text("stack_digest"),
        given.text("store"),
        given.one("source", choice(_SOURCE)),
        given.text("path"),
        given.text("problem"),
    )


def _record_data(record: AppliedRecord) -> dict[str, Any]:
    from stackconf.plan import is_unknown, last_known

    return {
        **provider_data(record.provider),
        "revision": record.revision,
        "at": record.at,
        "known": not is_unknown(record),
        "ran_before": last_known(record) is not None,
    }


def _record_from(data: object, configs: Mapping[Provider, Mapping[str, Any]]) -> AppliedRecord:
    from stackconf.plan import UNKNOWN, AppliedRecord

    given = Given(data)
    provider = provider_from(data)
    if provider not in configs:
        raise Misshapen(f"`providers` has no {provider.key} of type {provider.provider_type}")
    snapshot = dict(configs[provider])
    if not given.flag("known"):
        snapshot[UNKNOWN] = "changed" if given.flag("ran_before") else "joined"
    return AppliedRecord(provider, given.whole("revision"), snapshot, given.text("at"))


def _configs(
    providers: Mapping[str, list[dict[str, Any]]],
) -> dict[Provider, Mapping[str, Any]]:
    from stackconf.types import Provider

    return {
        Provider(api, each["provider_id"], str(each.get("provider_type"))): each["config"]
        for api, entries in providers.items()
        for each in entries
    }
