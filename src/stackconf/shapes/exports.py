"""What came of an export: the file's whole text, and what is to be known about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.packing import packed
from stackconf.shapes.issues import issue_from, issues_data
from stackconf.shapes.reading import Given

if TYPE_CHECKING:
    from stackconf.export.export import Exported
    from stackconf.export.patches import Change
    from stackconf.export.variables import Variable


def export_data(exported: Exported) -> dict[str, Any]:
    """What came of an export."""
    return {
        "text": exported.text,
        "changes": [
            {
                "provider": each.provider,
                "path": each.path,
                "value": packed(each.value),
                "source": each.source,
            }
            for each in exported.changes
        ],
        "variables": [
            {"name": each.name, "provider": each.provider or None, "path": each.path, "what": each.what}
            for each in exported.variables
        ],
        "issues": issues_data(exported.issues),
    }


def export_from(data: object) -> Exported:
    """What `export_data` wrote."""
    from stackconf.export.export import Exported

    given = Given(data)
    return Exported(
        given.text("text"),
        given.each("changes", _change_from),
        given.each("variables", _variable_from),
        given.each("issues", issue_from),
    )


def _change_from(data: object) -> Change:
    from stackconf.export.patches import Change

    given = Given(data)
    return Change(given.text("provider"), given.text("path"), given.value("value"), given.text("source"))


def _variable_from(data: object) -> Variable:
    from stackconf.export.variables import Variable

    given = Given(data)
    return Variable(given.text("name"), given.some_text("provider"), given.text("path"), given.text("what"))
