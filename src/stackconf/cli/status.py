"""`stackconf status`: what is wanted, what was tried last, and what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.failures import CHANGES
from stackconf.cli.opening import opened
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import Screen, emit_json, err, local_time, out, plural, show_issues
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.status import ProviderStatus, StackStatus, Tried

_NONE = "-"
_UNSURE = {"unknown", "applying"}
"""Standings in which nobody can say what a provider runs with; what is last known has a question mark."""
_OUTCOMES = {"rolled_back": "rolled back", "not_attempted": "not attempted"}


@click.command("status", cls=Command)
@click.option("--exit-code", is_flag=True, help="Exit with 3 unless every provider runs with what is wanted.")
@stack_options
@pass_settings
def status(settings: Settings, *, exit_code: bool) -> int:
    """Show for each provider what is wanted, what was tried last, and what it runs with.

    `to apply`: an apply would change it. `unknown`: nobody can say what it runs with, because an
    apply was killed or could not take it back; the next apply goes through it again.
    """
    with opened(settings) as stack, waiting(settings, "comparing"):
        found = stack.status()
        issues = [issue for issue in stack.issues if issue.level == "error"]
    if settings.json:
        from stackconf.shapes.status import status_data

        emit_json(status_data(found))
    else:
        _show(out(settings), found)
    wrong = show_issues(settings, issues)
    _hint(settings, found)
    if wrong:
        return 1
    return CHANGES if exit_code and not found.settled else 0


def _show(screen: Screen, found: StackStatus) -> None:
    head = ("provider", "state", "wanted", "tried", "runs with", "last attempt")
    screen.table(head, [_row(each) for each in found.providers])
    for each in found.providers:
        if each.tried is not None and each.tried.error:
            screen.paragraph(_told(each, each.tried), hang="  ")


def _row(each: ProviderStatus) -> tuple[str, ...]:
    tried = each.tried
    return (
        each.provider,
        each.standing,
        _revision(each.desired),
        _revision(tried.revision) if tried else _NONE,
        _revision(each.applied) if each.standing not in _UNSURE else f"{_revision(each.applied)}?",
        f"{_OUTCOMES.get(tried.state, tried.state)}, {local_time(tried.at)}" if tried else _NONE,
    )


def _told(each: ProviderStatus, tried: Tried) -> str:
    had = "nothing" if each.applied is None else f"what it had (revision {each.applied})"
    now = f"now it runs with {had}"
    if each.standing in _UNSURE:
        now = f"last known to run with {had}"
    elif each.applied is None:
        now = "nothing is applied to it"
    error = tried.error.removeprefix(f"{each.provider}: ")
    outcome = _OUTCOMES.get(tried.state, tried.state)
    attempted = f"tried revision {tried.revision} in attempt {tried.attempt}"
    return f"{each.provider}: {attempted}, {outcome}: {error}; {now}"


def _hint(settings: Settings, found: StackStatus) -> None:
    if found.lost:
        err(settings).note("warning", f"the store {found.lost}; an apply is refused")
        err(settings).note(
            "hint", "`stackconf inspect --applied` shows it; `stackconf store recover` goes on"
        )
        return
    if found.running is not None:
        who = f" by {found.running.actor}" if found.running.actor else ""
        since = f" since {local_time(found.running.since)}" if found.running.since else ""
        err(settings).line(f"an apply is running{who}{since}")
        return
    if found.cut_off is not None:
        touched = plural(len(found.cut_off.touched), "provider")
        began = local_time(found.cut_off.begun_at)
        err(settings).note(
            "warning", f"attempt {found.cut_off.number} of {began} was killed when it had touched {touched}"
        )
        err(settings).note("hint", "`stackconf apply` goes on from there; `stackconf recover` takes it back")
    elif found.of("to apply") or found.of("to leave") or found.of("unknown"):
        err(settings).note("hint", "`stackconf plan` shows what an apply would change")


def _revision(number: int | None) -> str:
    return _NONE if number is None else str(number)
