"""The shapes that `--json` prints: plain mappings of what the core returns, already redacted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stackconf.store.base import outcome_data

if TYPE_CHECKING:
    from stackconf.apply import Report
    from stackconf.configurations import Listed, Registered
    from stackconf.drift import Drift, FieldDrift
    from stackconf.errors import Conflict
    from stackconf.export.export import Exported
    from stackconf.history import Difference, History
    from stackconf.plan import FieldChange, Plan, ProviderChange
    from stackconf.status import StackStatus
    from stackconf.store.base import Configuration, Revision, RevisionSummary
    from stackconf.store.checking import Checked
    from stackconf.store.lastgood import LastGood
    from stackconf.store.salvage import Recovered
    from stackconf.types import Issue, Origin


def issue_data(issue: Issue) -> dict[str, Any]:
    """One issue; `text` is the line that people see."""
    where = issue.where
    return {
        "level": issue.level,
        "code": issue.code,
        "provider": issue.provider,
        "path": issue.path,
        "message": issue.message,
        "hint": issue.hint,
        "where": {"file": where.file, "line": where.line, "column": where.column} if where else None,
        "text": str(issue),
    }


def issues_data(issues: Iterable[Issue]) -> list[dict[str, Any]]:
    """Many issues."""
    return [issue_data(issue) for issue in issues]


def origin_data(origin: Origin) -> dict[str, Any]:
    """Where one value came from, and what it beat."""
    return {
        "path": origin.path,
        "value": origin.value,
        "layer": origin.layer,
        "source": origin.source,
        "reason": origin.reason,
        "user_field": origin.user_field,
        "update": origin.update,
        "beat": [
            {"layer": each.layer, "value": each.value, "source": each.source, "reason": each.reason}
            for each in origin.beat
        ],
    }


def plan_data(plan: Plan) -> dict[str, Any]:
    """A plan with everything it was made from."""
    return {
        "base_revision": plan.base_revision,
        "stack_digest": plan.stack_digest,
        "hardware_fingerprint": plan.hardware_fingerprint,
        "changes": [_change_data(change) for change in plan.changes],
        "unchanged": list(plan.unchanged),
        "issues": issues_data(plan.issues),
    }


def _change_data(change: ProviderChange) -> dict[str, Any]:
    return {
        "provider": change.provider.key,
        "provider_type": change.provider.provider_type,
        "kind": change.kind,
        "update": change.update,
        "fields": [_field_data(field) for field in change.fields],
        "class_defaults": change.class_defaults,
        "known": change.known,
    }


def _field_data(field: FieldChange) -> dict[str, Any]:
    return {
        "path": field.path,
        "before": field.before,
        "after": field.after,
        "update": field.update,
        "layer": field.layer,
        "source": field.source,
        "reason": field.reason,
    }


def drift_data(drift: Drift) -> dict[str, Any]:
    """What is applied otherwise than the files say."""
    return {
        "stack": drift.stack,
        "providers": [
            {
                "provider": each.provider.key,
                "provider_type": each.provider.provider_type,
                "kind": each.kind,
                "revision": each.revision,
                "detail": each.detail,
                "fields": [_drifted_data(row) for row in each.fields],
            }
            for each in drift.providers
        ],
        "same": list(drift.same),
        "issues": issues_data(drift.issues),
    }


def _drifted_data(row: FieldDrift) -> dict[str, Any]:
    return {
        "path": row.path,
        "applied": row.applied,
        "file": row.file,
        "configuration": row.configuration or None,
        "revision": row.revision or None,
        "actor": row.actor or None,
        "changed": list(row.changed),
        "file_layer": row.file_layer,
        "file_source": row.file_source,
    }


def export_data(exported: Exported) -> dict[str, Any]:
    """What came of an export; the text is the whole file."""
    return {
        "text": exported.text,
        "changes": [
            {"provider": each.provider, "path": each.path, "value": each.value, "source": each.source}
            for each in exported.changes
        ],
        "variables": [
            {"name": each.name, "provider": each.provider or None, "path": each.path, "what": each.what}
            for each in exported.variables
        ],
        "issues": issues_data(exported.issues),
    }


def report_data(report: Report) -> dict[str, Any]:
    """How an apply went."""
    return {
        "state": report.state,
        "revision": report.revision,
        "attempt": report.attempt,
        "took_over": report.took_over,
        "outcomes": [outcome_data(outcome) for outcome in report.outcomes],
        "warnings": [*report.warnings],
    }


def status_data(found: StackStatus) -> dict[str, Any]:
    """Where each provider stands."""
    running, cut_off = found.running, found.cut_off
    return {
        "revision": found.revision,
        "running": running and {"pid": running.pid, "actor": running.actor, "since": running.since},
        "cut_off": cut_off
        and {
            "attempt": cut_off.number,
            "revision": cut_off.revision,
            "begun_at": cut_off.begun_at,
            "actor": cut_off.actor,
            "undoing": cut_off.undoing,
            "touched": [step.provider.key for step in cut_off.touched],
        },
        "lost": found.lost or None,
        "providers": [
            {
                "provider": each.provider,
                "state": each.standing,
                "desired": each.desired,
                "tried": each.tried
                and {
                    "attempt": each.tried.attempt,
                    "revision": each.tried.revision,
                    "state": each.tried.state,
                    "error": each.tried.error,
                    "at": each.tried.at,
                },
                "applied": each.applied,
            }
            for each in found.providers
        ],
    }


def applied_data(applied: LastGood) -> dict[str, Any]:
    """What is applied, and where that is from."""
    return {
        **applied.configuration(),
        "applied": {
            key: {"revision": record.revision, "at": record.at, "known": key not in applied.unknown}
            for key, record in applied.providers.items()
        },
        "head": applied.head,
        "attempt": applied.attempt,
        "at": applied.at,
        "source": applied.source,
        "path": applied.path,
        "problem": applied.problem,
    }


def checked_data(checked: Checked) -> dict[str, Any]:
    """What a check of a store found."""
    opened = checked.open_attempt
    names = ("path", "version", "head", "revisions", "lost", "documents", "orphans", "attempts", "applied")
    return {
        "sound": checked.sound,
        **{name: getattr(checked, name) for name in (*names, "size", "wal")},
        "open_attempt": None if opened is None else {"number": opened.number, "begun_at": opened.begun_at},
        "problems": [*checked.problems],
        "notes": [*checked.notes],
    }


def recovered_data(recovered: Recovered) -> dict[str, Any]:
    """What came of a recovery."""
    return {
        "path": recovered.path,
        "aside": recovered.aside,
        "head": recovered.head,
        "kept": [*recovered.kept],
        "lost": [*recovered.lost],
        "lost_revisions": [*recovered.lost_revisions],
        "applied": [*recovered.applied],
    }


def conflict_data(error: Conflict) -> dict[str, Any]:
    """Who changed what since, against what is mine. A value that is not there is left out."""
    return {
        "expected": error.expected,
        "head": error.head,
        "since": [revision_data(each) for each in error.since],
        "conflicts": [
            {
                "configuration": each.configuration,
                "provider": each.provider,
                "path": each.path,
                **_there({"before": each.before, "theirs": each.theirs, "mine": each.mine}),
                "clashes": each.clashes,
                "revision": each.revision,
                "actor": each.actor,
                "at": each.at,
                "action": each.action,
                "subject": each.subject,
            }
            for each in error.conflicts
        ],
    }


def revision_data(revision: Revision | RevisionSummary) -> dict[str, Any]:
    """A revision without its state; `restores` is the one that a rollback went back to."""
    return {
        "revision": revision.number,
        "at": revision.at,
        "actor": revision.actor,
        "action": revision.action,
        "subject": revision.subject,
        "restores": revision.restores,
    }


def shown_data(revision: Revision) -> dict[str, Any]:
    """A revision with what is registered and assigned at it."""
    return {
        **revision_data(revision),
        "assigned": list(revision.state.assigned),
        "configurations": [configuration_data(each) for each in revision.state.configurations.values()],
    }


def history_data(history: History) -> dict[str, Any]:
    """Revisions and attempts, newest first."""
    return {
        "oldest": history.oldest,
        "applied": history.applied,
        "revisions": [revision_data(each) for each in history.revisions],
        "attempts": [
            {
                "attempt": each.number,
                "revision": each.revision,
                "state": each.state,
                "begun_at": each.begun_at,
                "finished_at": each.finished_at,
                "seconds": each.seconds,
                "actor": each.actor,
                "provider": each.provider or None,
                "error": each.error or None,
                "now": each.now,
                "took_over": each.took_over,
            }
            for each in history.attempts
        ],
    }


def difference_data(found: Difference) -> dict[str, Any]:
    """What changed between two revisions. A value that is not there is left out."""
    data: dict[str, Any] = {
        "before": found.before,
        "after": found.after,
        "configurations": [
            {
                "name": each.name,
                "change": each.kind,
                "assignment": each.assignment,
                "before": each.before or None,
                "after": each.after or None,
                "fields": [
                    {
                        "provider": field.provider,
                        "path": field.path,
                        **_there({"before": field.before, "after": field.after}),
                    }
                    for field in each.fields
                ],
            }
            for each in found.configurations
        ],
    }
    if found.effective is not None:
        data["effective"] = [_change_data(change) for change in found.effective]
        data["unresolved"] = list(found.unresolved)
    return data


def _there(values: dict[str, object]) -> dict[str, object]:
    from stackconf.conflicts import ABSENT

    return {key: value for key, value in values.items() if value is not ABSENT}


def configuration_data(configuration: Configuration) -> dict[str, Any]:
    """A configuration with what it says."""
    return {
        "name": configuration.name,
        "source": configuration.source,
        "revision": configuration.revision,
        "providers": configuration.providers,
    }


def listed_data(listed: Listed) -> dict[str, Any]:
    """A configuration in a listing; `assigned` is its place in the overlay, `None` where it is not."""
    return {
        "name": listed.name,
        "state": "assigned" if listed.assigned else "available",
        "assigned": listed.assigned or None,
        "source": listed.source,
        "revision": listed.revision or None,
        "providers": list(listed.providers),
        "description": listed.description,
    }


def registered_data(registered: Registered, *, assigned: bool) -> dict[str, Any]:
    """What came of a registration."""
    return {
        "name": registered.name,
        "revision": registered.revision,
        "assigned": assigned,
        "kept": registered.kept,
        "dropped": issues_data(registered.dropped),
        "warnings": issues_data(registered.warnings),
        "plan": plan_data(registered.plan),
    }
