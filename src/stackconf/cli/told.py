"""What several commands say the same way: a value that may not be there, who changed what, a conflict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf.cli.output import local_time, value_text
from stackconf.conflicts import ABSENT

if TYPE_CHECKING:
    from stackconf.cli.output import Screen
    from stackconf.conflicts import FieldConflict
    from stackconf.errors import Conflict
    from stackconf.store.base import Revision, RevisionSummary

_MOST = 20
"""How many revisions of a conflict are listed; of more, the newest."""


def told_value(value: object) -> str:
    """A value on one line, or that there is none."""
    return "(not set)" if value is ABSENT else value_text(value)


def told_change(revision: Revision | RevisionSummary) -> str:
    """What a revision did: register `name`, rollback to 3."""
    if revision.restores is not None:
        return f"{revision.action} to {revision.restores}"
    return f"{revision.action} `{revision.subject}`" if revision.subject else revision.action


def tell_conflict(screen: Screen, error: Conflict) -> None:
    """Who changed what since the expected revision, and against what."""
    more = len(error.since) - _MOST
    if more > 0:
        screen.line(f"  {more} revisions before these")
    for revision in error.since[-_MOST:]:
        when = local_time(revision.at)
        screen.line(f"  revision {revision.number}: {told_change(revision)}, by {revision.actor}, {when}")
        for each in error.conflicts:
            if each.revision == revision.number:
                screen.paragraph(_told_field(each), indent="    ", hang="      ")
    if not error.mergeable:
        screen.note("hint", "without --expect-revision it is done all the same")
    elif error.since:
        merge = "" if any(each.clashes for each in error.conflicts) else "--retry merges; "
        screen.note("hint", f"{merge}--force replaces what others changed; or read it and try again")


def _told_field(each: FieldConflict) -> str:
    where = f"{each.provider}: {each.path}" if each.path else each.provider
    change = f"{where}: {told_value(each.before)} -> {told_value(each.theirs)}"
    return f"{change}; you say {told_value(each.mine)}" if each.clashes else change
