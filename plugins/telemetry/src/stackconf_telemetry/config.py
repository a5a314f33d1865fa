"""The settings of `telemetry/inline::meta-reference`, of every upstream version at once."""

from __future__ import annotations

from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from stackconf import user_field
from stackconf_storage import DatabasePath

Sink: TypeAlias = Literal["console", "sqlite", "otel_trace", "otel_metric"]

ZERO_WIDTH_SPACE = "\u200b"
"""Upstream's default for `service_name`: it stands for "none given"."""


class TelemetryConfig(BaseModel):
    """Where spans and metrics go, and how they are batched.

    Upstream named the collector in three ways: `otel_endpoint` (0.0.63 to 0.1.8),
    `otel_trace_endpoint` and `otel_metric_endpoint` (0.1.9 to 0.2.12), and
    `otel_exporter_otlp_endpoint` (from 0.2.16). All are understood; a signal's own endpoint beats
    the common one, as OpenTelemetry's exporter specification has it.

    >>> TelemetryConfig(sinks="console, otel").sinks
    ['console', 'otel_trace']
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    sinks: list[Sink] = user_field(
        ["console", "sqlite"],
        update="in_place",
        description="Where telemetry goes: console, sqlite, otel_trace, otel_metric; a list or text with "
        "commas. `otel` is the older name of otel_trace. Empty: nowhere.",
    )
    service_name: str | None = Field(
        ZERO_WIDTH_SPACE,
        description="The service's name in every span. Empty or a zero-width space: OTEL_SERVICE_NAME, else "
        "OpenTelemetry's `unknown_service`.",
    )
    otel_trace_endpoint: str | None = Field(
        None, description="Full URL that takes spans, such as http://localhost:4318/v1/traces."
    )
    otel_metric_endpoint: str | None = Field(
        None, description="Full URL that takes metrics, such as http://localhost:4318/v1/metrics."
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description="The collector's base URL; /v1/traces and /v1/metrics are added. Unset: "
        "OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4318.",
    )
    otel_endpoint: str | None = Field(None, description="Older name of otel_trace_endpoint.")
    sqlite_db_path: DatabasePath = Field(
        "~/.llama/runtime/trace_store.db",
        description="The file that the sqlite sink writes, in upstream's layout.",
    )
    max_queue_size: int = user_field(
        2048,
        update="in_place",
        ge=1,
        le=1_000_000,
        description="Spans that may wait for one sink; more are dropped (OTEL_BSP_MAX_QUEUE_SIZE).",
    )
    max_export_batch_size: int = user_field(
        512,
        update="in_place",
        ge=1,
        le=1_000_000,
        description="Spans written or sent at once (OTEL_BSP_MAX_EXPORT_BATCH_SIZE).",
    )
    schedule_delay_millis: int = user_field(
        5000,
        update="in_place",
        ge=1,
        le=3_600_000,
        description="Milliseconds between exports of spans (OTEL_BSP_SCHEDULE_DELAY).",
    )
    metric_export_interval_millis: int = user_field(
        60_000,
        update="in_place",
        ge=100,
        le=86_400_000,
        description="Milliseconds between exports of metrics (OTEL_METRIC_EXPORT_INTERVAL).",
    )

    @field_validator("sinks", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        """Text with commas, the older `otel`, and upstream's `None` for none."""
        if value is None:
            return []
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)):
            return value
        clean = [name.strip() if isinstance(name, str) else name for name in names]
        named = ["otel_trace" if name == "otel" else name for name in clean if name != ""]
        return [name for index, name in enumerate(named) if name not in named[:index]]

    @field_validator(
        "otel_trace_endpoint", "otel_metric_endpoint", "otel_exporter_otlp_endpoint", "otel_endpoint"
    )
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None or not value.strip():
            return None
        url = value.strip()
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:  # a bracket is open, or the port is no port
            usable = False
        if not usable:
            raise ValueError("must be a URL such as http://localhost:4318/v1/traces")
        return url
