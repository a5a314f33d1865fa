"""The plugin: `telemetry/inline::meta-reference`. OpenTelemetry is imported when it is applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import Issue, ProviderType, because, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackconf import Applied, Hardware, Provider
    from stackconf_telemetry.config import TelemetryConfig

stackconf_api = 1

provides = (
    ProviderType(
        "telemetry",
        "inline::meta-reference",
        "stackconf_telemetry.config:TelemetryConfig",
        description="Traces and metrics with OpenTelemetry: console, SQLite, OTLP over HTTP",
        in_process=True,
    ),
)

SPAN_BYTES = 8 * 1024
"""Memory of one waiting span, in bytes: 6.8 KB measured on opentelemetry-sdk 1.45 for a span with
ten attributes of 200 characters and one event (2.7 KB empty), rounded up."""

SPANS_PER_CORE = 1024
MEMORY_FRACTION = 128
SPECIFIED_QUEUE = 2048
SMALLEST_QUEUE = 512
LARGEST_QUEUE = 65_536
BATCHES_PER_QUEUE = 4
LARGEST_BATCH = 2048

_GIB = 1024**3


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object] | None:
    """Size the queue of waiting spans, and the batches taken from it.

    queue = 1024 per usable core and at least the specification's 2048, but within 1/128 of the
    usable memory at 8 KiB per span; never below 512 or above 65536. Spans come from requests, and
    requests from cores; what is not exported in time is dropped when the queue is full. batch =
    a quarter of the queue, as 512 is of 2048, at most 2048 spans (about 6 MB as OTLP, well below
    the collector's limit of 20 MiB for a request). Source of 2048 and 512: OpenTelemetry
    specification, "Batch Span Processor", OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE.
    """
    cores, memory = hardware.cpu.usable_cores, hardware.memory.usable_bytes
    if cores is None or memory is None:
        return None
    wanted = max(SPECIFIED_QUEUE, SPANS_PER_CORE * int(cores))
    room = memory // MEMORY_FRACTION // SPAN_BYTES
    queue = max(SMALLEST_QUEUE, min(wanted, room, LARGEST_QUEUE))
    batch = min(queue // BATCHES_PER_QUEUE, LARGEST_BATCH)
    return {
        "max_queue_size": because(queue, _reason(queue, wanted, cores, memory)),
        "max_export_batch_size": because(
            batch, f"a quarter of the queue of {queue} spans, at most {LARGEST_BATCH}"
        ),
    }


def _reason(queue: int, wanted: int, cores: float, memory: int) -> str:
    if queue == LARGEST_QUEUE:
        return f"{cores:g} usable cores, capped at {LARGEST_QUEUE} spans"
    if queue < wanted:
        return (
            f"1/{MEMORY_FRACTION} of {memory / _GIB:.1f} GiB usable memory at {SPAN_BYTES // 1024} KiB per "
            f"span, at least {SMALLEST_QUEUE} (cores alone would give {wanted})"
        )
    return f"{SPANS_PER_CORE} spans per core for {cores:g} usable cores, at least {SPECIFIED_QUEUE}"


@hookimpl
def validate_user_config(config: TelemetryConfig) -> Iterator[Issue]:
    """A batch must fit into the queue, and a collector wants a sink that reports to it."""
    if config.max_export_batch_size > config.max_queue_size:
        yield Issue(
            f"a batch of {config.max_export_batch_size} spans does not fit into a queue of "
            f"{config.max_queue_size}",
            path="max_export_batch_size",
            hint=f"use at most {config.max_queue_size}, or set a larger max_queue_size",
        )
    for field, sinks in _NEEDED_SINKS.items():
        if getattr(config, field) and not set(sinks) & set(config.sinks):
            yield Issue(
                f"has no effect: no sink is {' or '.join(sinks)}",
                level="warning",
                path=field,
                hint=f"add `{sinks[0]}` to sinks",
            )


_NEEDED_SINKS = {
    "otel_trace_endpoint": ("otel_trace",),
    "otel_endpoint": ("otel_trace",),
    "otel_metric_endpoint": ("otel_metric",),
    "otel_exporter_otlp_endpoint": ("otel_trace", "otel_metric"),
}


@hookimpl
def apply_config(provider: Provider, config: TelemetryConfig | None) -> Applied:
    """Exchange this process's OpenTelemetry pipeline.

    A collector that does not answer is told in the detail and does not make the change pending:
    its exporter is in place and delivers as soon as it answers, and the other sinks work.
    """
    from stackconf_telemetry import running

    return running.leave(provider.key) if config is None else running.join(provider.key, config)
