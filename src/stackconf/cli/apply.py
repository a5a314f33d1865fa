"""`stackconf apply`: all or nothing, with a report of how each provider fared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stackconf.cli.failures import ERROR, INTERRUPTED
from stackconf.cli.opening import opened
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import Screen, emit_json, err, out, show_issues, visible
from stackconf.cli.plan import is_unmanaged, summary
from stackconf.cli.waiting import Line, waiting
from stackconf.errors import ApplyError

if TYPE_CHECKING:
    from stackconf.apply import Observer, Outcome, Progress, Report
    from stackconf.cli.events import Lines
    from stackconf.plan import Plan
    from stackconf.stack import Stack

_WORDS = {
    "applied": ("applied", "green"),
    "pending": ("pending", "yellow"),
    "failed": ("failed", "red"),
    "rolled_back": ("rolled back", "yellow"),
    "unknown": ("unknown", "red"),
    "not_attempted": ("not attempted", "dim"),
}
_STEPS = {"apply": "applying", "check": "checking", "undo": "taking back"}


@click.command("apply", cls=Command)
@click.argument("plan", metavar="[PLAN]", required=False, type=click.Path())
@click.option("--require-healthy", is_flag=True, help="A provider that cannot be reached is a failure.")
@click.option("--events", is_flag=True, help="Print what happens, as it happens: JSON, one object a line.")
@stack_options
@pass_settings
def apply(settings: Settings, *, plan: str | None, require_healthy: bool, events: bool) -> int:
    """Make the running providers match the plan, all or nothing.

    PLAN is a file that `stackconf plan -o` wrote. Exactly it is applied, or nothing if anything
    moved since. Without one, the plan is made now.

    A provider that fails takes back what was applied before it. One that cannot be reached is
    pending: the rest goes on, and the next apply tries it again. `stackconf plan` shows what
    would happen.
    """
    if not events:
        return _run(settings, plan, require_healthy=require_healthy)
    if settings.json:
        raise click.UsageError("--events prints JSON by itself; leave --json out")
    from stackconf.cli.events import streamed

    with streamed() as lines:
        return _run(settings, plan, require_healthy=require_healthy, lines=lines)


def _run(settings: Settings, plan: str | None, *, require_healthy: bool, lines: Lines | None = None) -> int:
    with opened(settings) as stack:
        with waiting(settings, "planning"):
            made = stack.plan() if plan is None else stack.read_plan(plan)
        if not made.errors:
            show_issues(settings, [issue for issue in made.issues if not is_unmanaged(issue)])
            if made.changes:
                source = f"{plan} for " if plan else ""
                head = f"{source}{stack.file.name}, revision {made.base_revision}"
                err(settings).line(f"{head}: {summary(made)}")
        report = _applied(settings, stack, made, require_healthy=require_healthy, lines=lines)
    if report is None:
        interrupted = {"error": "interrupted", "issues": []}
        if lines is not None:
            lines.say({"event": "error", **interrupted})
        elif settings.json:
            emit_json(interrupted)
        return INTERRUPTED
    _tell(settings, report, lines)
    if report.state == "pending":
        err(settings).note("hint", "the next `stackconf apply` tries again what is pending")
    if report.state == "failed":
        err(settings).note("error", _failure(report))
        return ERROR
    return 0


def _tell(settings: Settings, report: Report, lines: Lines | None) -> None:
    if lines is None and not settings.json:
        _Told(out(settings)).show(report)
        return
    from stackconf.cli.shapes import report_data

    if lines is None:
        emit_json(report_data(report))
    else:
        lines.say({"event": "report", **report_data(report)})
        lines.close()  # on a terminal the hints come after it


def _failure(report: Report) -> str:
    lost = ", ".join(outcome.provider for outcome in report.of("unknown"))
    if lost:
        return f"the apply failed, and {lost} could not be taken back: its state is unknown"
    return "the apply failed, and nothing of it was kept"


def _applied(
    settings: Settings, stack: Stack, made: Plan, *, require_healthy: bool, lines: Lines | None
) -> Report | None:
    """The report of an apply, a failed one too; `None` when it was interrupted."""
    try:
        if lines is not None:
            return stack.apply(made, require_healthy=require_healthy, observer=lines.progress)
        with waiting(settings, "applying") as line:
            return stack.apply(made, require_healthy=require_healthy, observer=_observer(line))
    except ApplyError as error:
        from stackconf.apply import Report

        if not isinstance(error.report, Report):
            raise
        return error.report
    except KeyboardInterrupt:
        _tell_interrupted(settings, stack)
        return None


def _observer(line: Line) -> Observer:
    def observe(progress: Progress) -> None:
        if progress.seconds is None:
            number = f"{progress.position} of {progress.total}"
            line.say(f"{_STEPS[progress.step]} {progress.provider} ({number})")

    return observe


def _tell_interrupted(settings: Settings, stack: Stack) -> None:
    attempts = stack.store.attempts()
    outcomes = attempts[0].report.get("outcomes", ()) if attempts else ()
    back = [each["provider"] for each in outcomes if each["state"] == "rolled_back"]
    lost = [each["provider"] for each in outcomes if each["state"] in {"failed", "unknown"}]
    screen = err(settings)
    screen.line(f"interrupted; taken back: {', '.join(back) or 'nothing'}")
    if lost:
        screen.line(f"state unknown: {', '.join(lost)}; apply again to be sure")


class _Told:
    """A report as a person reads it."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self, report: Report) -> None:
        if not report.outcomes:
            self._screen.line("nothing to do: what runs is what is configured")
            return
        words = max(len(_WORDS[outcome.state][0]) for outcome in report.outcomes)
        keys = max(len(visible(outcome.provider)) for outcome in report.outcomes)
        for outcome in report.outcomes:
            self._outcome(outcome, words, keys)
        self._screen.line(self._verdict(report), "bold")

    def _outcome(self, outcome: Outcome, words: int, keys: int) -> None:
        word, color = _WORDS[outcome.state]
        seconds = f"{outcome.seconds:6.2f} s" if outcome.state != "not_attempted" else " " * 8
        kind = "leaves" if outcome.kind == "leave" else ""
        problem = outcome.error.removeprefix(f"{outcome.provider}: ")
        detail = "" if outcome.state == "rolled_back" else outcome.detail
        text = "; ".join(part for part in (kind, problem, detail) if part)
        start = f"{visible(outcome.provider):{keys}}  {seconds}  "
        state = self._screen.style(f"{word:{words}}", color)
        width = words + 2 + len(start)
        if self._screen.width is None or len(text) + width <= self._screen.width:
            self._screen.raw(f"{state}  {start}")
            self._screen.line(text)
        else:
            self._screen.raw(f"{state}  {start.rstrip()}\n")
            self._screen.paragraph(text, indent=" " * 4)

    @staticmethod
    def _verdict(report: Report) -> str:
        parts = []
        for state, (word, _) in _WORDS.items():
            count = len(report.of(state))  # type: ignore[arg-type]
            if count:
                parts.append(f"{count} {word}")
        how = {"failed": "failed", "pending": "applied, in part pending"}.get(report.state, "applied")
        return f"revision {report.revision} {how}: {', '.join(parts)}"
