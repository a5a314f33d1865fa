"""What this process reports through: joining, changing, leaving, and taking each of them back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stackconf import Applied
from stackconf_telemetry import switch
from stackconf_telemetry.pipeline import Pipeline, build, where
from stackconf_telemetry.sqlite import TelemetryUnusable

if TYPE_CHECKING:
    from stackconf_telemetry.config import TelemetryConfig

_owner: str | None = None
_retired: Pipeline | None = None
"""What the last change replaced. It stays open until the next change, so that spans begun in it
still arrive and an undo has it back as it was."""


def join(provider: str, config: TelemetryConfig) -> Applied:
    """Report through a new pipeline from now on, in the place of an earlier one.

    Raises `TelemetryUnusable` when the trace store cannot be used, or when another provider of this
    process reports already.
    """
    if _owner not in (None, provider):
        raise TelemetryUnusable(
            f"this process reports through {_owner} already; a stack has one telemetry provider, remove one"
        )
    fresh = build(config)
    taken = switch.install()
    before = _exchange(fresh, provider)

    def undo() -> None:
        _restore(before)
        fresh.discard()

    def check() -> str | None:
        if switch.current() is not fresh:
            return "telemetry of this process has been configured anew since"
        return fresh.check()

    return Applied(_told(fresh, config, taken), undo=undo, check=check)


def leave(provider: str) -> Applied:
    """Report no more. The trace store's file stays."""
    if _owner != provider:
        return Applied("telemetry was off in this process")
    before = _exchange(None, None)

    def undo() -> None:
        _restore(before)

    def check() -> str | None:
        return None if switch.current() is None else "telemetry of this process was switched on again"

    return Applied("telemetry is off in this process; the trace store is kept", undo=undo, check=check)


def _exchange(fresh: Pipeline | None, owner: str | None) -> tuple[str | None, Pipeline | None]:
    global _owner, _retired
    expired = _retired
    before = (_owner, switch.use(fresh))
    _owner, _retired = owner, before[1]
    if expired is not None:
        expired.close_later()
    return before


def _restore(before: tuple[str | None, Pipeline | None]) -> None:
    global _owner, _retired  # noqa: PLW0603 - the same
    _owner, pipeline = before
    _retired = None
    switch.use(pipeline)


def _told(fresh: Pipeline, config: TelemetryConfig, taken: tuple[str, ...]) -> str:
    names = {
        "console": "console (stderr)",
        "sqlite": f"sqlite ({'' if fresh.store is None else fresh.store.path})",
        **{f"otel_{signal[:-1]}": f"otel_{signal[:-1]} ({where(url)})" for signal, url in fresh.endpoints},
    }
    parts = [f"spans go to {', '.join(names[sink] for sink in config.sinks)}" if config.sinks else "no sinks"]
    parts += [f"{line}; it is tried again at every export" for line in fresh.unreachable()]
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        parts.append("OTEL_SDK_DISABLED is set, so nothing is recorded")
    if taken:
        parts.append(
            f"this process has an OpenTelemetry provider of its own for {' and '.join(taken)}, which stays; "
            "use stackconf_telemetry.current()"
        )
    return "; ".join(parts)
