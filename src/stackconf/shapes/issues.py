"""Issues, with the position in the file that each is about."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stackconf.shapes.reading import Given, choice

if TYPE_CHECKING:
    from stackconf.types import Issue, Position


def issue_data(issue: Issue) -> dict[str, Any]:
    """One issue; `text` is the line that people see."""
    return {
        "level": issue.level,
        "code": issue.code,
        "provider": issue.provider,
        "path": issue.path,
        "message": issue.message,
        "hint": issue.hint,
        "where": None if issue.where is None else position_data(issue.where),
        "text": str(issue),
    }


def issue_from(data: object) -> Issue:
    """What `issue_data` wrote."""
    from stackconf.types import Issue, Level

    given = Given(data)
    return Issue(
        given.text("message"),
        given.one("level", choice(Level)),
        given.some_text("path"),
        given.some_text("hint"),
        given.some_text("code"),
        given.some_text("provider"),
        given.maybe("where", position_from),
    )


def issues_data(issues: Iterable[Issue]) -> list[dict[str, Any]]:
    """Many issues."""
    return [issue_data(issue) for issue in issues]


def position_data(where: Position) -> dict[str, Any]:
    """A place in a text file."""
    return {"file": where.file, "line": where.line, "column": where.column}


def position_from(data: object) -> Position:
    """What `position_data` wrote."""
    from stackconf.types import Position

    given = Given(data)
    return Position(given.text("file"), given.whole("line"), given.whole("column"))
