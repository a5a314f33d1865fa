"""What is applied otherwise than the files say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.packing import packed
from stackconf.shapes.issues import issue_from, issues_data
from stackconf.shapes.providers import provider_data, provider_from
from stackconf.shapes.reading import Given, choice, whole

if TYPE_CHECKING:
    from stackconf.drift import Drift, FieldDrift, ProviderDrift


def drift_data(drift: Drift) -> dict[str, Any]:
    """Every provider that drifted, and how."""
    return {
        "stack": drift.stack,
        "providers": [
            {
                **provider_data(each.provider),
                "kind": each.kind,
                "revision": each.revision,
                "detail": each.detail,
                "fields": [_field_data(row) for row in each.fields],
            }
            for each in drift.providers
        ],
        "same": list(drift.same),
        "issues": issues_data(drift.issues),
    }


def drift_from(data: object) -> Drift:
    """What `drift_data` wrote."""
    from stackconf.drift import Drift

    given = Given(data)
    return Drift(
        given.text("stack"),
        given.each("providers", _provider_from),
        given.texts("same"),
        given.each("issues", issue_from),
    )


def _provider_from(data: object) -> ProviderDrift:
    from stackconf.drift import Kind, ProviderDrift

    given = Given(data)
    return ProviderDrift(
        provider_from(data),
        given.one("kind", choice(Kind)),
        given.whole("revision"),
        given.each("fields", _field_from),
        given.some_text("detail"),
    )


def _field_data(row: FieldDrift) -> dict[str, Any]:
    return {
        "path": row.path,
        "applied": packed(row.applied),
        "file": packed(row.file),
        "configuration": row.configuration or None,
        "revision": row.revision or None,
        "actor": row.actor or None,
        "changed": list(row.changed),
        "file_layer": row.file_layer,
        "file_source": row.file_source,
    }


def _field_from(data: object) -> FieldDrift:
    from stackconf.drift import FieldDrift
    from stackconf.types import LayerName

    given = Given(data)
    return FieldDrift(
        given.text("path"),
        given.value("applied"),
        given.value("file"),
        given.some_text("configuration"),
        given.maybe("revision", whole) or 0,
        given.some_text("actor"),
        given.texts("changed"),
        given.maybe("file_layer", choice(LayerName)),
        given.some_text("file_source"),
    )
