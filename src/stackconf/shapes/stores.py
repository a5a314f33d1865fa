"""What a check of a store found, and what came of recovering one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.shapes.reading import Given, text, whole

if TYPE_CHECKING:
    from stackconf.store.checking import Checked
    from stackconf.store.salvage import Recovered


def checked_data(checked: Checked) -> dict[str, Any]:
    """What a check of a store found. It is made where the file is, and never read back."""
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


def recovered_from(data: object) -> Recovered:
    """What `recovered_data` wrote."""
    from stackconf.store.salvage import Recovered

    given = Given(data)
    return Recovered(
        given.text("path"),
        given.maybe("aside", text),
        given.whole("head"),
        given.each("lost_revisions", whole),
        given.texts("kept"),
        given.texts("lost"),
        given.texts("applied"),
    )
