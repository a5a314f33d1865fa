"""Revisions and attempts, what differs between two revisions, and what came of going back to one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stackconf.packing import packed
from stackconf.shapes.configurations import state_data, state_from
from stackconf.shapes.plans import change_data, change_from
from stackconf.shapes.reading import Given, choice, number, text, tuple_of, value, whole

if TYPE_CHECKING:
    from stackconf.conflicts import FieldConflict, FieldDiff
    from stackconf.history import AttemptSummary, ConfigurationDiff, Difference, History, RolledBack
    from stackconf.store.base import Pruned, Revision, RevisionSummary


def summary_data(revision: Revision | RevisionSummary) -> dict[str, Any]:
    """A revision without its state; `restores` is the one that a rollback went back to, `lost` why its
    state is not known.
    """
    return {
        "revision": revision.number,
        "at": revision.at,
        "actor": revision.actor,
        "action": revision.action,
        "subject": revision.subject,
        "restores": revision.restores,
        "lost": revision.lost or None,
    }


def summary_from(data: object) -> RevisionSummary:
    """What `summary_data` wrote."""
    from stackconf.store.base import RevisionSummary

    given = Given(data)
    return RevisionSummary(
        given.whole("revision"),
        given.text("at"),
        given.text("actor"),
        given.text("action"),
        given.text("subject"),
        given.maybe("restores", whole),
        given.some_text("lost"),
    )


def revision_data(revision: Revision) -> dict[str, Any]:
    """A revision with what is registered and assigned at it."""
    return {**summary_data(revision), **state_data(revision.state)}


def revision_from(data: object) -> Revision:
    """What `revision_data` wrote."""
    from stackconf.store.base import Revision

    head = summary_from(data)
    return Revision(
        head.number,
        head.at,
        head.actor,
        head.action,
        head.subject,
        state_from(data),
        head.lost,
        head.restores,
    )


def history_data(history: History) -> dict[str, Any]:
    """Revisions and attempts, newest first."""
    return {
        "oldest": history.oldest,
        "applied": history.applied,
        "revisions": [summary_data(each) for each in history.revisions],
        "attempts": [attempt_data(each) for each in history.attempts],
    }


def history_from(data: object) -> History:
    """What `history_data` wrote."""
    from stackconf.history import History

    given = Given(data)
    return History(
        given.each("revisions", summary_from),
        given.each("attempts", attempt_from),
        given.whole("oldest"),
        given.maybe("applied", whole),
    )


def attempt_data(attempt: AttemptSummary) -> dict[str, Any]:
    """One apply."""
    return {
        "attempt": attempt.number,
        "revision": attempt.revision,
        "state": attempt.state,
        "begun_at": attempt.begun_at,
        "finished_at": attempt.finished_at,
        "seconds": attempt.seconds,
        "actor": attempt.actor,
        "provider": attempt.provider or None,
        "error": attempt.error or None,
        "now": attempt.now,
        "took_over": attempt.took_over,
    }


def attempt_from(data: object) -> AttemptSummary:
    """What `attempt_data` wrote."""
    from stackconf.history import AttemptSummary

    given = Given(data)
    return AttemptSummary(
        given.whole("attempt"),
        given.whole("revision"),
        given.text("state"),
        given.text("begun_at"),
        given.maybe("finished_at", text),
        given.maybe("seconds", number),
        given.text("actor"),
        given.some_text("provider"),
        given.some_text("error"),
        given.maybe("now", whole),
        given.maybe("took_over", whole),
    )


def difference_data(found: Difference) -> dict[str, Any]:
    """What changed between two revisions. A value that is not there is left out."""
    data: dict[str, Any] = {
        "before": found.before,
        "after": found.after,
        "configurations": [_configuration_data(each) for each in found.configurations],
    }
    if found.effective is not None:
        data["effective"] = [change_data(change) for change in found.effective]
        data["unresolved"] = list(found.unresolved)
    return data


def difference_from(data: object) -> Difference:
    """What `difference_data` wrote."""
    from stackconf.history import Difference

    given = Given(data)
    return Difference(
        given.whole("before"),
        given.whole("after"),
        given.each("configurations", _configuration_from),
        given.maybe("effective", tuple_of(change_from)),
        given.maybe("unresolved", tuple_of(text)) or (),
    )


def _configuration_data(each: ConfigurationDiff) -> dict[str, Any]:
    return {
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


def _configuration_from(data: object) -> ConfigurationDiff:
    from stackconf.history import AssignmentChange, ConfigurationChange, ConfigurationDiff

    given = Given(data)
    return ConfigurationDiff(
        given.text("name"),
        given.one("change", choice(ConfigurationChange)),
        given.one("assignment", choice(AssignmentChange)),
        given.maybe("before", whole) or 0,
        given.maybe("after", whole) or 0,
        given.each("fields", _diff_from),
    )


def _diff_from(data: object) -> FieldDiff:
    from stackconf.conflicts import FieldDiff

    given = Given(data)
    return FieldDiff(
        given.text("provider"), given.text("path"), _if_there(given, "before"), _if_there(given, "after")
    )


def conflict_data(each: FieldConflict) -> dict[str, Any]:
    """A leaf that somebody else changed meanwhile. A value that is not there is left out."""
    return {
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


def conflict_from(data: object) -> FieldConflict:
    """What `conflict_data` wrote."""
    from stackconf.conflicts import FieldConflict

    given = Given(data)
    return FieldConflict(
        given.text("configuration"),
        given.text("provider"),
        given.text("path"),
        _if_there(given, "before"),
        _if_there(given, "theirs"),
        _if_there(given, "mine"),
        given.flag("clashes"),
        given.whole("revision"),
        given.text("actor"),
        given.text("at"),
        given.text("action"),
        given.text("subject"),
    )


def _there(values: Mapping[str, object]) -> dict[str, Any]:
    from stackconf.conflicts import ABSENT

    return {key: packed(each) for key, each in values.items() if each is not ABSENT}


def _if_there(given: Given, key: str) -> Any:
    from stackconf.conflicts import ABSENT

    return given.one(key, value) if key in given.data else ABSENT


def rolled_back_data(done: RolledBack) -> dict[str, Any]:
    """What came of a rollback."""
    return {"revision": done.revision, "restores": done.restores, "changed": done.changed}


def rolled_back_from(data: object) -> RolledBack:
    """What `rolled_back_data` wrote."""
    from stackconf.history import RolledBack

    given = Given(data)
    return RolledBack(given.whole("revision"), given.whole("restores"), given.flag("changed"))


def pruned_data(pruned: Pruned) -> dict[str, Any]:
    """How much was forgotten, and what is kept."""
    return {
        "oldest": pruned.oldest,
        "revisions": pruned.revisions,
        "documents": pruned.documents,
        "attempts": pruned.attempts,
        "pinned": list(pruned.pinned),
    }


def pruned_from(data: object) -> Pruned:
    """What `pruned_data` wrote."""
    from stackconf.store.base import Pruned

    given = Given(data)
    return Pruned(
        given.whole("oldest"),
        given.whole("revisions"),
        given.whole("documents"),
        given.whole("attempts"),
        given.each("pinned", whole),
    )
