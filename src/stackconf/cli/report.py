"""How an apply is told: while it runs, provider by provider at its end, and when it was interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stackconf.cli.failures import ERROR, INTERRUPTED
from stackconf.cli.opening import client_of, stack_of
from stackconf.cli.output import Screen, emit_json, err, out, visible
from stackconf.errors import ApplyError

if TYPE_CHECKING:
    from stackconf.apply import Observer, Outcome, Progress, Report
    from stackconf.cli.events import Lines
    from stackconf.cli.opening import Opened
    from stackconf.cli.options import Settings
    from stackconf.cli.waiting import Line

_WORDS = {
    "applied": ("applied", "green"),
    "pending": ("pending", "yellow"),
    "failed": ("failed", "red"),
    "rolled_back": ("rolled back", "yellow"),
    "unknown": ("unknown", "red"),
    "not_attempted": ("not attempted", "dim"),
}
_STEPS = {"apply": "applying", "check": "checking", "undo": "taking back"}


def report_of(settings: Settings, stack: Opened, run: Callable[[], Report]) -> Report | None:
    """The report of an apply, a failed one too; `None` when it was interrupted, which is said.

    To be told to end counts as being interrupted: what was done is taken back.
    """
    try:
        with _ended_gently():
            return run()
    except ApplyError as error:
        from stackconf.apply import Report

        if not isinstance(error.report, Report):
            raise
        return error.report
    except KeyboardInterrupt:
        _tell_interrupted(settings, stack)
        return None


@contextmanager
def _ended_gently() -> Iterator[None]:
    """Whoever stops the process (a service manager, a closed terminal) interrupts it instead."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_code(
    settings: Settings,
    report: Report | None,
    lines: Lines | None = None,
    *,
    around: Mapping[str, Any] | None = None,
) -> int:
    """Show the report, or that there is none; the command's exit code.

    As JSON it stands at `report` of what is `around` it, if anything is.
    """
    if report is None:
        interrupted = {**(around or {}), "error": "interrupted", "issues": []}
        if lines is not None:
            lines.say({"event": "error", **interrupted})
        elif settings.json:
            emit_json(interrupted)
        return INTERRUPTED
    if around is None or not settings.json:
        tell(settings, report, lines)
    else:
        from stackconf.shapes.reports import report_data

        emit_json({**around, "report": report_data(report)})
    for warning in report.warnings:
        err(settings).note("warning", warning)
    if report.state == "failed":
        err(settings).note("error", _failure(report))
        return ERROR
    return 0


def tell(settings: Settings, report: Report, lines: Lines | None) -> None:
    """Show a report: to a person, as JSON, or as the last line of a stream."""
    if lines is None and not settings.json:
        _Told(out(settings)).show(report)
        return
    from stackconf.shapes.reports import event_data, report_data

    if lines is None:
        emit_json(report_data(report))
    else:
        lines.say(event_data(report))
        lines.close()  # on a terminal the hints come after it


def _failure(report: Report) -> str:
    if report.restores:
        return "not all of what was applied before is back"
    lost = ", ".join(outcome.provider for outcome in report.of("unknown"))
    if lost:
        return f"the apply failed, and {lost} could not be taken back: its state is unknown"
    return "the apply failed, and nothing of it was kept"


def observer_of(line: Line) -> Observer:
    """An observer that says on the running line which provider's turn it is."""

    def observe(progress: Progress) -> None:
        if progress.seconds is None:
            number = f"{progress.position} of {progress.total}"
            line.say(f"{_STEPS[progress.step]} {progress.provider} ({number})")

    return observe


def _tell_interrupted(settings: Settings, stack: Opened) -> None:
    if client_of(stack):
        err(settings).line("interrupted here; the server goes on with it")
        err(settings).note("hint", "`stackconf status` says how it goes")
        return
    attempts = stack_of(stack).store.attempts()
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
        if report.took_over:
            self._screen.line(
                f"attempt {report.took_over} had been killed; what it had touched was gone through again"
            )

    def _outcome(self, outcome: Outcome, words: int, keys: int) -> None:
        word, color = _WORDS[outcome.state]
        seconds = f"{outcome.seconds:6.2f} s" if outcome.state != "not_attempted" else " " * 8
        kind = {"leave": "leaves", "restore": "as it was before"}.get(outcome.kind, "")
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
        if report.restores:
            how = "is back" if report.state == "applied" else "is not back in full"
            return f"what was applied before {how}: {', '.join(parts)}"
        partly = "applied in part" if report.of("applied") else "not applied yet"
        how = partly if report.state == "pending" else report.state
        return f"revision {report.revision} {how}: {', '.join(parts)}"
