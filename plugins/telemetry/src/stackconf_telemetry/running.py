"""What this process reports through: joining, changing, leaving, and taking each of them back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from stackconf import Applied, Holder
from stackconf_telemetry import switch
from stackconf_telemetry.pipeline import Pipeline, build, where
from stackconf_telemetry.sqlite import TelemetryUnusable

if TYPE_CHECKING:
    from stackconf_telemetry.config import TelemetryConfig

held: Holder[Pipeline] = Holder(
    close=Pipeline.close_later,
    discard=Pipeline.discard,
    install=lambda _, pipeline: switch.use(pipeline),
)
"""What the provider of this process reports through. OpenTelemetry has one place for all, so there
is at most one."""


def join(provider: str, config: TelemetryConfig) -> Applied:
    """Report through a new pipeline from now on, in the place of an earlier one.

    Raises `TelemetryUnusable` when the trace store cannot be used, or when another provider of this
    process reports already.
    """
    others = [other for other in held.providers if other != provider]
    if others:
        raise TelemetryUnusable(
            f"this process reports through {others[0]} already; "
            "a stack has one telemetry provider, remove one"
        )
    fresh = build(config)
    try:
        taken = switch.install()
        swap = held.swap(provider, fresh, check=fresh.check)
    except BaseException:
        fresh.discard()
        raise
    return swap.applied(_told(fresh, config, taken))


def leave(provider: str) -> Applied:
    """Report no more. The trace store's file stays."""
    swap = held.swap(provider, None)
    if swap.before is None:
        return swap.applied("telemetry was off in this process")
    return swap.applied("telemetry is off in this process; the trace store is kept")


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
