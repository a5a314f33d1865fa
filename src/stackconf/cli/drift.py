"""`stackconf drift`: where what runs differs from what the files say, and who or what did it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from stackconf.cli.failures import CHANGES, ERROR
from stackconf.cli.opening import opened
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import NOTHING, Screen, emit_json, out, plural, show_issues, value_text
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.drift import Drift, FieldDrift, ProviderDrift

_SAYS = {
    "differs": "differs from the files",
    "other_type": "is of another type in the file",
    "not_applied": "is in the file and was never applied",
    "not_in_file": "is applied and not in the file",
    "unknown": "is in a state that nobody knows; the next apply applies it again",
    "invalid": "cannot be compared: what the files say of it is not valid",
}
_COLORS = {"not_applied": "green", "not_in_file": "red", "invalid": "red", "unknown": "red"}


@click.command("drift", cls=Command)
@click.option("--exit-code", is_flag=True, help="Exit with 3 when something drifted.")
@stack_options
@pass_settings
def drift(settings: Settings, *, exit_code: bool) -> int:
    """Compare what is applied with what the files say.

    The files are the stack file, the defaults for this hardware and those of the classes, without
    any registered configuration. Each field shows both values, and the configuration that brought
    the applied one, or what may have changed since.
    """
    with opened(settings) as stack, waiting(settings, "comparing"):
        found = stack.drift()
    if settings.json:
        from stackconf.shapes.drift import drift_data

        emit_json(drift_data(found))
    else:
        _show(out(settings), found, verbose=settings.verbose)
    if show_issues(settings, found.issues):
        return ERROR
    return CHANGES if exit_code and found else 0


def summary(found: Drift) -> str:
    """A drift in one line.

    >>> from stackconf.drift import Drift
    >>> summary(Drift("stack.yaml", same=("inference/one",)))
    'nothing drifted; 1 provider as the files say'
    """
    kinds: Counter[str] = Counter(each.kind for each in found.providers)
    words = {
        "differs": "differs" if kinds["differs"] == 1 else "differ",
        "other_type": "of another type",
        "not_applied": "not applied",
        "not_in_file": "not in the file",
        "unknown": "unknown",
        "invalid": "not comparable",
    }
    parts = [f"{kinds[kind]} {word}" for kind, word in words.items() if kinds[kind]]
    same = f"{plural(len(found.same), 'provider')} as the files say" if found.same else ""
    return "; ".join(filter(None, [", ".join(parts) or "nothing drifted", same]))


def _show(screen: Screen, found: Drift, *, verbose: bool) -> None:
    for each in found.providers:
        _provider(screen, each)
        screen.line()
    if found.same and verbose:
        screen.paragraph(f"as the files say: {', '.join(found.same)}", hang=" " * 4)
        screen.line()
    screen.line(f"{found.stack}: {summary(found)}", "bold")


def _provider(screen: Screen, each: ProviderDrift) -> None:
    at = f" (applied at revision {each.revision})" if each.revision else ""
    detail = f": {each.detail}" if each.detail else ""
    says = f" ({each.provider.provider_type}) {_SAYS[each.kind]}{detail}{at}"
    screen.raw(screen.style(each.provider.key, _COLORS.get(each.kind, "yellow"), "bold"))
    screen.line(says)
    if each.fields:
        head = ("field", "applied", "the files say", "why")
        screen.table(head, [_row(row) for row in each.fields], indent="    ")


def _row(row: FieldDrift) -> tuple[str, str, str, str]:
    says = NOTHING if row.file_layer is None else value_text(row.file)
    return row.path, value_text(row.applied), says, why(row)


def why(row: FieldDrift) -> str:
    """Who or what made a field drift.

    >>> from stackconf.drift import FieldDrift
    >>> why(FieldDrift("url", "http://a", "http://b", "mine", 3, "ada"))
    'configuration `mine` (revision 3, by ada)'
    >>> changed = ("environment", "stack file")
    >>> why(FieldDrift("url", "a", "b", changed=changed, file_layer="stack", file_source="stack.yaml:7:12"))
    'the environment or the stack file changed since; the files say it at stack.yaml:7:12'
    """
    if row.configuration:
        actor = f", by {row.actor}" if row.actor else ""
        return f"configuration `{row.configuration}` (revision {row.revision}{actor})"
    said = " or ".join(f"the {word}" for word in row.changed) or "something"
    place = f"; the files say it at {row.file_source}" if row.file_layer == "stack" else ""
    return f"{said} changed since{place}"
