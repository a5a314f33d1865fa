"""A span exporter that writes to SQLite in upstream's own layout.

The layout is that of llama-stack 0.0.63 to 0.2.23 (`sqlite_span_processor.py`), so that a trace
store is shared with upstream's server and read by its query API:

| table | columns |
|---|---|
| `traces` | `trace_id` (32 hex digits), `service_name`, `root_span_id`, `start_time`, `end_time`, `created_at` |
| `spans` | `span_id` (16 hex digits), `trace_id`, `parent_span_id`, `name`, `start_time`, `end_time`, `attributes` (JSON), `status`, `kind` |
| `span_events` | `id`, `span_id`, `name`, `timestamp`, `attributes` (JSON) |

Times are ISO 8601 in UTC.
"""  # noqa: E501 - a table's row is one line

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import SpanContext, TraceFlags, format_span_id, format_trace_id

from stackconf import StackconfError
from stackconf_storage import StoreUnusable, claim, existing_database

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_log = logging.getLogger(__name__)

_WAIT_FOR_LOCK_SECONDS = 5.0

_LAYOUT = """
CREATE TABLE IF NOT EXISTS traces (
    trace_id TEXT PRIMARY KEY,
    service_name TEXT,
    root_span_id TEXT,
    start_time TIMESTAMP,
    end_time TIMESTAMP,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE IF NOT EXISTS spans (
    span_id TEXT PRIMARY KEY,
    trace_id TEXT REFERENCES traces(trace_id),
    parent_span_id TEXT,
    name TEXT,
    start_time TIMESTAMP,
    end_time TIMESTAMP,
    attributes TEXT,
    status TEXT,
    kind TEXT
);
CREATE TABLE IF NOT EXISTS span_events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    span_id TEXT REFERENCES spans(span_id),
    name TEXT,
    timestamp TIMESTAMP,
    attributes TEXT
);
CREATE INDEX IF NOT EXISTS idx_traces_created_at ON traces(created_at);
"""

_TRACE = """
INSERT INTO traces (trace_id, service_name, root_span_id, start_time, end_time) VALUES (?, ?, ?, ?, ?)
ON CONFLICT(trace_id) DO UPDATE SET
    root_span_id = COALESCE(root_span_id, excluded.root_span_id),
    start_time = MIN(excluded.start_time, start_time),
    end_time = MAX(excluded.end_time, end_time)
"""
_SPAN = """
INSERT OR REPLACE INTO spans
    (span_id, trace_id, parent_span_id, name, start_time, end_time, attributes, status, kind)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_EVENT = "INSERT INTO span_events (span_id, name, timestamp, attributes) VALUES (?, ?, ?, ?)"


class TelemetryUnusable(StackconfError):
    """Telemetry cannot work as configured. One line: what, why."""


class SqliteSpanExporter(SpanExporter):
    """Writes each batch of spans in one transaction.

    Opening creates the file and the folders above it where they are missing; `discard` takes them
    away again while they hold no span. Raises `TelemetryUnusable` with one line when the file cannot be
    opened or is no SQLite database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        try:
            self._place = claim(path)
        except StoreUnusable as error:
            raise TelemetryUnusable(f"cannot open the trace store: {error}") from None
        try:
            self._db = sqlite3.connect(
                existing_database(path), uri=True, timeout=_WAIT_FOR_LOCK_SECONDS, check_same_thread=False
            )
        except sqlite3.Error as error:
            self._place.give_back()
            raise TelemetryUnusable(f"cannot open the trace store {path}: {error}") from None
        try:
            self._db.executescript(_LAYOUT)
        except sqlite3.Error as error:
            self._db.close()
            self._place.give_back()
            raise TelemetryUnusable(f"cannot use {path} as a trace store: {error}") from None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans, all or none. A failure is logged; telemetry must not stop the work."""
        try:
            self._write(spans)
        except (sqlite3.Error, ValueError) as error:
            _log.warning("%d spans could not be written to %s: %s", len(spans), self.path, error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Nothing waits here: every batch is committed."""
        return True

    def shutdown(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def probe(self) -> str | None:
        """Write a span, read it back and remove it; what is wrong, or `None`."""
        ids = RandomIdGenerator()
        context = SpanContext(
            ids.generate_trace_id(), ids.generate_span_id(), is_remote=False, trace_flags=TraceFlags(1)
        )
        now = time.time_ns()
        span = ReadableSpan("stackconf.probe", context, start_time=now, end_time=now)
        trace_id = format_trace_id(context.trace_id)
        try:
            self._write([span])
            with self._lock, self._db:
                found = self._db.execute("SELECT name FROM spans WHERE trace_id = ?", (trace_id,)).fetchone()
                self._db.execute("DELETE FROM spans WHERE trace_id = ?", (trace_id,))
                self._db.execute("DELETE FROM traces WHERE trace_id = ?", (trace_id,))
        except sqlite3.Error as error:
            return f"cannot write to the trace store {self.path}: {error}"
        if not self.path.exists():
            return f"the trace store {self.path} was deleted while in use"
        return None if found == (span.name,) else f"the trace store {self.path} lost a span"

    def discard(self) -> None:
        """Close, and remove the file and folders made on opening, unless spans came in."""
        with self._lock:
            try:
                used = self._db.execute("SELECT EXISTS (SELECT 1 FROM spans)").fetchone() != (0,)
            except sqlite3.Error:
                used = True
            self._db.close()
        if not used and self._place.made_file:
            self.path.unlink(missing_ok=True)
        self._place.give_back()

    def _write(self, spans: Sequence[ReadableSpan]) -> None:
        rows = [_rows(span) for span in spans]
        with self._lock, self._db:
            self._db.executemany(_TRACE, [trace for trace, _, _ in rows])
            self._db.executemany(_SPAN, [span for _, span, _ in rows])
            self._db.executemany(_EVENT, [event for _, _, events in rows for event in events])


def _rows(span: ReadableSpan) -> tuple[tuple[object, ...], tuple[object, ...], list[tuple[object, ...]]]:
    context = span.context
    if context is None:
        raise ValueError(f"span `{span.name}` has no context")
    trace_id, span_id = format_trace_id(context.trace_id), format_span_id(context.span_id)
    parent = None if span.parent is None else format_span_id(span.parent.span_id)
    start, end = _iso(span.start_time), _iso(span.end_time)
    attributes = span.attributes or {}
    # Upstream marks the first span of a request itself; for everyone else's spans it is the one
    # without a parent.
    root = span_id if parent is None or attributes.get("__root_span__") == "true" else None
    service = span.resource.attributes.get("service.name", "unknown")
    trace = (trace_id, service, root, start, end)
    row = (
        span_id,
        trace_id,
        parent,
        span.name,
        start,
        end,
        _json(attributes),
        span.status.status_code.name,
        span.kind.name,
    )
    events: list[tuple[object, ...]] = [
        (span_id, event.name, _iso(event.timestamp), _json(event.attributes or {})) for event in span.events
    ]
    return trace, row, events


def _iso(nanoseconds: int | None) -> str | None:
    return None if nanoseconds is None else datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat()


def _json(attributes: Mapping[str, object]) -> str:
    return json.dumps(dict(attributes), default=str)
