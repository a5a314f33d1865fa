"""What is logged, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackconf.apply import Outcome, Report


def told_of(report: Report) -> str:
    """How an apply went, in one line.

    >>> from stackconf.apply import Outcome, Report
    >>> told_of(Report("pending", (Outcome("inference/a", "join", "pending", error="no route"),)))
    'pending: inference/a (no route)'
    """
    states = dict.fromkeys(each.state for each in report.outcomes)
    parts = [f"{state}: {', '.join(map(_named, report.of(state)))}" for state in states]
    return "; ".join(parts) or "nothing to apply"


def _named(outcome: Outcome) -> str:
    return f"{outcome.provider} ({outcome.error})" if outcome.error else outcome.provider
