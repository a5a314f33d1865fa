"""Plans. The hardware behind the fingerprint is not in them: an apply may be sent its facts besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.packing import packed
from stackconf.shapes.issues import issue_from, issues_data
from stackconf.shapes.providers import provider_data, provider_from
from stackconf.shapes.reading import Given, choice

if TYPE_CHECKING:
    from stackconf.plan import FieldChange, Plan, ProviderChange


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan with everything it was made from."""
    return {
        "base_revision": plan.base_revision,
        "stack_digest": plan.stack_digest,
        "hardware_fingerprint": plan.hardware_fingerprint,
        "changes": [change_data(change) for change in plan.changes],
        "unchanged": list(plan.unchanged),
        "issues": issues_data(plan.issues),
    }


def plan_from(data: object) -> Plan:
    """What `plan_data` wrote, for an apply to refuse when anything moved since."""
    from stackconf.plan import Plan

    given = Given(data)
    return Plan(
        given.whole("base_revision"),
        given.text("stack_digest"),
        given.text("hardware_fingerprint"),
        given.each("changes", change_from),
        given.texts("unchanged"),
        given.each("issues", issue_from),
    )


def change_data(change: ProviderChange) -> dict[str, Any]:
    """What would happen to one provider. `target` and `base` are keyed digests, no secret in the clear."""
    return {
        **provider_data(change.provider),
        "kind": change.kind,
        "update": change.update,
        "fields": [field_data(field) for field in change.fields],
        "class_defaults": change.class_defaults,
        "known": change.known,
        "target": change.target,
        "base": change.base,
    }


def change_from(data: object) -> ProviderChange:
    """What `change_data` wrote."""
    from stackconf.plan import Kind, ProviderChange
    from stackconf.types import UpdateClass

    given = Given(data)
    return ProviderChange(
        provider_from(data),
        given.one("kind", choice(Kind)),
        given.one("update", choice(UpdateClass)),
        given.each("fields", field_from),
        given.whole("class_defaults"),
        given.text("target"),
        given.text("base"),
        given.flag("known"),
    )


def field_data(field: FieldChange) -> dict[str, Any]:
    """One leaf that would change."""
    return {
        "path": field.path,
        "before": packed(field.before),
        "after": packed(field.after),
        "update": field.update,
        "layer": field.layer,
        "source": field.source,
        "reason": field.reason,
    }


def field_from(data: object) -> FieldChange:
    """What `field_data` wrote."""
    from stackconf.plan import FieldChange
    from stackconf.types import LayerName, UpdateClass

    given = Given(data)
    return FieldChange(
        given.text("path"),
        given.value("before"),
        given.value("after"),
        given.one("update", choice(UpdateClass)),
        given.one("layer", choice(LayerName)),
        given.text("source"),
        given.some_text("reason"),
    )
