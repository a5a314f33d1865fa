"""stackconf's provider for telemetry: OpenTelemetry traces and metrics, configured while running.

`current()` is what this process reports through now; OpenTelemetry's own
`trace.get_tracer(...)` and `metrics.get_meter(...)` lead there as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackconf_telemetry.pipeline import Pipeline

__all__ = ["current"]


def current() -> Pipeline | None:
    """The pipeline in use, with its `tracer_provider` and `meter_provider`; `None` while off."""
    from stackconf_telemetry import switch

    return switch.current()
