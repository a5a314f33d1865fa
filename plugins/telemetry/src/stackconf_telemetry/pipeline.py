"""One configuration's real OpenTelemetry providers, and the sinks behind them."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from http.client import HTTPException
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from attrs import frozen
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

from stackconf_storage import expanded
from stackconf_telemetry.config import ZERO_WIDTH_SPACE, TelemetryConfig
from stackconf_telemetry.sqlite import SqliteSpanExporter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExportResult

_REACH_SECONDS = 2.0
_NOT_FOUND = 404
_LOCAL_COLLECTOR = "http://localhost:4318"

Signal = Literal["traces", "metrics"]


class _StderrSpanExporter(ConsoleSpanExporter):
    """Spans as JSON on stderr: stdout belongs to the program's data.

    The stream is looked up at each export, since a program may replace it.
    """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.out = sys.stderr
        return super().export(spans)


@frozen(eq=False)
class Pipeline:
    """The providers that one configuration made. `close` flushes and ends them."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    store: SqliteSpanExporter | None
    store_processor: BatchSpanProcessor | None
    endpoints: tuple[tuple[Signal, str], ...]
    """The collectors' URLs by signal."""

    def force_flush(self) -> None:
        """Export everything that waits; blocks until it is done or the exporters give up."""
        self.tracer_provider.force_flush()
        if isinstance(self.meter_provider, SdkMeterProvider):
            self.meter_provider.force_flush()

    def close(self) -> None:
        """Flush and end. Can take as long as an exporter keeps trying a collector that is gone."""
        with suppress(Exception):  # a sink that cannot be flushed must not keep the rest open
            self.tracer_provider.shutdown()
        if isinstance(self.meter_provider, SdkMeterProvider):
            with suppress(Exception):  # the same
                self.meter_provider.shutdown()

    def close_later(self) -> None:
        """`close`, without making the caller wait for a collector that is gone."""
        if not self.endpoints:
            self.close()
            return
        threading.Thread(target=self.close, name="stackconf-telemetry-close", daemon=True).start()

    def discard(self) -> None:
        """End it and take away the trace store that it made, if no span came in."""
        if self.store is not None and self.store_processor is not None:
            self.store_processor.force_flush()
            self.store.discard()
        self.close_later()

    def check(self) -> str | None:
        """What is wrong with the local sinks, or `None`. Collectors may come and go."""
        return None if self.store is None else self.store.probe()

    def unreachable(self) -> list[str]:
        """One line for each collector that does not answer now."""
        return [f"{where(url)} {problem}" for _, url in self.endpoints if (problem := reach(url)) is not None]


def build(config: TelemetryConfig) -> Pipeline:
    """Make the providers and sinks of a configuration; nothing uses them yet.

    Raises `TelemetryUnusable` with one line when the trace store cannot be opened, and leaves nothing
    behind then.
    """
    store = SqliteSpanExporter(expanded(config.sqlite_db_path)) if "sqlite" in config.sinks else None
    try:
        return _assemble(config, store)
    except BaseException:
        if store is not None:
            store.discard()
        raise


def _assemble(config: TelemetryConfig, store: SqliteSpanExporter | None) -> Pipeline:
    resource = _resource(config)
    tracers = TracerProvider(resource=resource)
    endpoints: list[tuple[Signal, str]] = []
    store_processor = None if store is None else _add(tracers, store, config)
    if "console" in config.sinks:
        _add(tracers, _StderrSpanExporter(), config)
    if "otel_trace" in config.sinks:
        endpoints.append(("traces", endpoint(config, "traces")))
        _add(tracers, OTLPSpanExporter(endpoint=endpoints[-1][1]), config)
    meters: MeterProvider = NoOpMeterProvider()
    if "otel_metric" in config.sinks:
        endpoints.append(("metrics", endpoint(config, "metrics")))
        reader = PeriodicExportingMetricReader(
            OTLPMetricExporter(endpoint=endpoints[-1][1]),
            export_interval_millis=config.metric_export_interval_millis,
        )
        meters = SdkMeterProvider(metric_readers=[reader], resource=resource)
    return Pipeline(tracers, meters, store, store_processor, tuple(endpoints))


def _add(tracers: TracerProvider, exporter: SpanExporter, config: TelemetryConfig) -> BatchSpanProcessor:
    processor = BatchSpanProcessor(
        exporter,
        max_queue_size=config.max_queue_size,
        schedule_delay_millis=config.schedule_delay_millis,
        max_export_batch_size=config.max_export_batch_size,
    )
    tracers.add_span_processor(processor)
    return processor


def endpoint(config: TelemetryConfig, signal: Signal) -> str:
    """The URL that takes a signal: its own setting, the common one, the environment, localhost.

    The order is that of OpenTelemetry's exporter specification, with the file before the
    environment.

    >>> base = TelemetryConfig(otel_exporter_otlp_endpoint="http://collector:4318/")
    >>> endpoint(base, "metrics")
    'http://collector:4318/v1/metrics'
    """
    own = (
        (config.otel_trace_endpoint or config.otel_endpoint)
        if signal == "traces"
        else config.otel_metric_endpoint
    )
    if own:
        return own
    if config.otel_exporter_otlp_endpoint:
        return _below(config.otel_exporter_otlp_endpoint, signal)
    named = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return named or _below(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or _LOCAL_COLLECTOR, signal)


def _below(base: str, signal: Signal) -> str:
    # A real distribution of upstream gives the traces URL where the base belongs.
    for path in ("/v1/traces", "/v1/metrics"):
        base = base.removesuffix(path)
    return f"{base.rstrip('/')}/v1/{signal}"


def reach(url: str) -> str | None:
    """Ask a collector for real, with an empty OTLP request: what is wrong, or `None`.

    An empty protobuf message is a valid request of no spans (OTLP specification, "OTLP/HTTP").
    Answers about permission count as reached: credentials belong to the exporter alone.
    """
    request = Request(_without_user(url), data=b"", headers={"Content-Type": "application/x-protobuf"})  # noqa: S310 - http(s) by validation
    try:
        with urlopen(request, timeout=_REACH_SECONDS):  # noqa: S310 - the same
            return None
    except HTTPError as error:
        code = error.code
        error.close()
        return "answers 404: is its path right?" if code == _NOT_FOUND else None
    except URLError as error:
        return f"cannot be reached ({_short(error.reason)})"
    except (OSError, HTTPException) as error:
        return f"cannot be reached ({_short(error)})"
    except ValueError:
        return "cannot be asked: it is no valid URL"


def where(url: str) -> str:
    """A URL for people: without the user, password and query that may hold secrets.

    >>> where("https://user:secret@collector:4318/v1/traces?key=secret")
    'https://collector:4318/v1/traces'
    """
    return urlsplit(_without_user(url))._replace(query="", fragment="").geturl()


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _short(reason: object) -> str:
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return str(reason) or type(reason).__name__


def _resource(config: TelemetryConfig) -> Resource:
    name = (config.service_name or "").replace(ZERO_WIDTH_SPACE, "").strip()
    return Resource.create({SERVICE_NAME: name} if name else {})
