from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from opentelemetry import metrics, trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import ValidationError

import stackconf_telemetry
from stackconf import Provider, StackconfError
from stackconf.testing import fresh_process, machine, no_hardware, serve, unused_port
from stackconf_telemetry import plugin, running
from stackconf_telemetry.config import TelemetryConfig
from stackconf_telemetry.pipeline import endpoint, reach
from stackconf_telemetry.sqlite import TelemetryUnusable

PROVIDER = Provider("telemetry", "meta-reference", "inline::meta-reference")


@pytest.fixture(autouse=True)
def _off_afterwards():
    yield
    _turn_off()


def _turn_off():
    running.held.clear()
    for thread in threading.enumerate():
        if thread.name == "stackconf-telemetry-close":
            thread.join()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@contextmanager
def _collector(port=0):
    """A real OTLP/HTTP receiver: what arrives is parsed with OpenTelemetry's own protobuf classes."""
    received: dict[str, list] = {"/v1/traces": [], "/v1/metrics": []}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            kinds = {"/v1/traces": ExportTraceServiceRequest, "/v1/metrics": ExportMetricsServiceRequest}
            kind = kinds.get(self.path)
            if kind is None:
                self.send_error(404)
                return
            received[self.path].append(kind.FromString(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with serve(Handler, port=port) as url:
        try:
            yield url, received
        finally:
            # While there is a collector to say goodbye to; an exporter tries a missing one for 10 s.
            _turn_off()


@pytest.fixture
def collector():
    with _collector() as both:
        yield both


def _apply(config, previous=None):
    return plugin.apply_config(provider=PROVIDER, config=config)


def _rows(path, query="SELECT name FROM spans ORDER BY start_time"):
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def _spans(requests):
    return [
        span.name
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


# The class


def test_the_forms_of_every_version_are_accepted():
    old = TelemetryConfig.model_validate(
        {"otel_endpoint": "http://c:4318/v1/traces", "sinks": "otel,console", "service_name": "llama-stack"}
    )
    assert old.sinks == ["otel_trace", "console"]
    assert endpoint(old, "traces") == "http://c:4318/v1/traces"
    middle = TelemetryConfig.model_validate(
        {
            "otel_trace_endpoint": "http://t/v1/traces",
            "otel_metric_endpoint": "http://m/v1/metrics",
            "sinks": ["otel_trace", "otel_metric"],
        }
    )
    assert (endpoint(middle, "traces"), endpoint(middle, "metrics")) == (
        "http://t/v1/traces",
        "http://m/v1/metrics",
    )
    new = TelemetryConfig.model_validate(
        {"otel_exporter_otlp_endpoint": "", "sinks": None, "service_name": "\u200b"}
    )
    assert (new.otel_exporter_otlp_endpoint, new.sinks) == (None, [])


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"sink": "console"}, "sink"),
        ({"sinks": "consol"}, "sinks"),
        ({"sinks": 7}, "sinks"),
        ({"otel_trace_endpoint": "collector:4318"}, "otel_trace_endpoint"),
        ({"max_queue_size": 0}, "max_queue_size"),
    ],
)
def test_mistakes_are_refused_at_their_field(config, field):
    with pytest.raises(ValidationError) as caught:
        TelemetryConfig.model_validate(config)
    assert caught.value.errors()[0]["loc"][0] == field


def test_a_url_given_as_the_base_is_understood_as_a_real_distribution_writes_it():
    config = TelemetryConfig(otel_exporter_otlp_endpoint="http://localhost:4318/v1/traces")
    assert endpoint(config, "traces") == "http://localhost:4318/v1/traces"
    assert endpoint(config, "metrics") == "http://localhost:4318/v1/metrics"


def test_the_environment_names_the_collector_where_the_file_does_not(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318/")
    assert endpoint(TelemetryConfig(), "traces") == "http://env:4318/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own/x")
    assert endpoint(TelemetryConfig(), "traces") == "http://own/x"
    named = TelemetryConfig(otel_exporter_otlp_endpoint="http://file:1")
    assert endpoint(named, "traces") == "http://file:1/v1/traces"


def test_user_fields_are_the_tunable_ones_and_no_path_or_address():
    labelled = {
        name
        for name, field in TelemetryConfig.model_fields.items()
        if (field.json_schema_extra or {}).get("user_field")
    }
    assert labelled == {
        "sinks",
        "max_queue_size",
        "max_export_batch_size",
        "schedule_delay_millis",
        "metric_export_interval_millis",
    }
    assert all(field.description for field in TelemetryConfig.model_fields.values())


# Defaults from hardware


@pytest.mark.parametrize(
    ("hardware", "queue", "batch"),
    [
        (machine(cores=8, memory_gib=32), 16384, 2048),
        (machine(cores=1, memory_gib=8), 2048, 512),
        (machine(cores=64, memory_gib=512), 65536, 2048),
        (machine(cores=64, memory_gib=512, memory_limit_gib=2), 2048, 512),
        (machine(cores=64, memory_gib=512, cpu_quota=2.5), 2048, 512),
        (machine(cores=4, memory_gib=0.25), 512, 128),
    ],
)
def test_the_queue_follows_cores_within_memory(hardware, queue, batch):
    given = plugin.default_config(hardware=hardware)
    assert given["max_queue_size"].value == queue
    assert given["max_export_batch_size"].value == batch
    assert plugin.default_config(hardware=hardware) == given
    assert queue * plugin.SPAN_BYTES <= max(
        hardware.memory.usable_bytes // 128, plugin.SMALLEST_QUEUE * plugin.SPAN_BYTES
    )


def test_the_reason_says_what_decided():
    roomy, tight = machine(cores=8, memory_gib=32), machine(cores=64, memory_limit_gib=2)
    reasons = [plugin.default_config(hardware=one)["max_queue_size"].reason for one in (roomy, tight)]
    assert reasons[0] == "1024 spans per core for 16 usable cores, at least 2048"
    assert reasons[1].startswith("1/128 of 2.0 GiB usable memory at 8 KiB per span")


def test_nothing_known_gives_no_defaults():
    assert plugin.default_config(hardware=no_hardware()) is None


def test_a_batch_larger_than_the_queue_is_an_error_with_advice():
    config = TelemetryConfig(max_queue_size=100, max_export_batch_size=512)
    issues = list(plugin.validate_user_config(config=config))
    assert [(one.level, one.path, one.hint) for one in issues] == [
        ("error", "max_export_batch_size", "use at most 100, or set a larger max_queue_size")
    ]


def test_a_collector_without_its_sink_is_a_warning():
    config = TelemetryConfig(otel_trace_endpoint="http://c/v1/traces")
    assert [(one.level, one.path) for one in plugin.validate_user_config(config=config)] == [
        ("warning", "otel_trace_endpoint")
    ]
    assert not list(plugin.validate_user_config(config=TelemetryConfig(sinks="otel_metric,console")))


# Applying


def test_spans_of_any_library_reach_the_trace_store_in_upstreams_layout(tmp_path):
    store = tmp_path / "deep" / "trace_store.db"
    applied = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store), service_name="shop"))
    assert str(store) in applied.detail
    with trace.get_tracer("a.library").start_as_current_span("request", attributes={"a": 1}) as outer:
        outer.add_event("milestone", {"severity": "info"})
        with trace.get_tracer("a.library").start_as_current_span("step"):
            pass
    stackconf_telemetry.current().force_flush()

    assert _rows(store) == [("request",), ("step",)]
    ((trace_id, service, root),) = _rows(store, "SELECT trace_id, service_name, root_span_id FROM traces")
    ((span_id, attributes),) = _rows(
        store, "SELECT span_id, attributes FROM spans WHERE parent_span_id IS NULL"
    )
    assert (service, root, json.loads(attributes)) == ("shop", span_id, {"a": 1})
    assert len(trace_id) == 32
    assert _rows(store, "SELECT name, attributes FROM span_events") == [("milestone", '{"severity": "info"}')]


def test_a_trace_store_of_upstream_is_written_on(tmp_path):
    # The statements of llama_stack 0.2.12, sqlite_span_processor.py.
    store = tmp_path / "trace_store.db"
    db = sqlite3.connect(store)
    db.executescript(
        """
        CREATE TABLE traces (trace_id TEXT PRIMARY KEY, service_name TEXT, root_span_id TEXT,
            start_time TIMESTAMP, end_time TIMESTAMP, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
        CREATE TABLE spans (span_id TEXT PRIMARY KEY, trace_id TEXT REFERENCES traces(trace_id),
            parent_span_id TEXT, name TEXT, start_time TIMESTAMP, end_time TIMESTAMP, attributes TEXT,
            status TEXT, kind TEXT);
        CREATE TABLE span_events (id INTEGER PRIMARY KEY AUTOINCREMENT, span_id TEXT REFERENCES
            spans(span_id), name TEXT, timestamp TIMESTAMP, attributes TEXT);
        INSERT INTO traces (trace_id) VALUES ('old');
        INSERT INTO spans (span_id, trace_id, name, start_time) VALUES ('1', 'old', 'before', '2025');
        """
    )
    db.close()
    applied = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store)))
    trace.get_tracer("x").start_span("after").end()
    stackconf_telemetry.current().force_flush()
    assert _rows(store) == [("before",), ("after",)]
    applied.undo()
    assert _rows(store) == [("before",), ("after",)]


def test_the_check_writes_a_probe_and_leaves_no_trace_of_it(tmp_path):
    store = tmp_path / "t.db"
    applied = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store)))
    assert applied.check() is None
    assert _rows(store) == []
    assert _rows(store, "SELECT * FROM traces") == []


def test_the_check_tells_when_the_store_is_gone_locked_or_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("stackconf_telemetry.sqlite._WAIT_FOR_LOCK_SECONDS", 0.1)
    store = tmp_path / "t.db"
    applied = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store)))
    holder = sqlite3.connect(store, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    assert applied.check() == f"cannot write to the trace store {store}: database is locked"
    holder.close()
    assert applied.check() is None
    store.unlink()
    assert "trace store" in applied.check()
    _apply(TelemetryConfig(sinks=""))
    assert applied.check() == "telemetry/meta-reference of this process has been configured anew since"


def test_undoing_a_join_turns_off_and_removes_the_unused_store(tmp_path):
    store = tmp_path / "new" / "folder" / "t.db"
    applied = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store)))
    assert store.exists()
    applied.undo()
    assert stackconf_telemetry.current() is None
    assert list(tmp_path.iterdir()) == []
    assert not trace.get_tracer("x").start_span("nobody listens").is_recording()


def test_undoing_keeps_a_store_that_spans_came_into(tmp_path):
    store = tmp_path / "t.db"
    applied = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store)))
    trace.get_tracer("x").start_span("kept").end()
    applied.undo()
    assert _rows(store) == [("kept",)]


def test_a_change_moves_existing_tracers_and_an_undo_moves_them_back(tmp_path):
    first, second = tmp_path / "1.db", tmp_path / "2.db"
    tracer = trace.get_tracer("held since before")
    before = TelemetryConfig(sinks="sqlite", sqlite_db_path=str(first))
    _apply(before)
    running_span = tracer.start_span("begun before, ended after")
    applied = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(second)), before)
    tracer.start_span("in the second").end()
    running_span.end()
    stackconf_telemetry.current().force_flush()
    assert _rows(second) == [("in the second",)]

    applied.undo()
    tracer.start_span("in the first again").end()
    stackconf_telemetry.current().force_flush()
    assert sorted(_rows(first)) == [("begun before, ended after",), ("in the first again",)]
    assert _rows(second) == [("in the second",)]


def test_leaving_turns_off_keeps_the_file_and_can_be_undone(tmp_path):
    store = tmp_path / "t.db"
    config = TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store))
    _apply(config)
    left = _apply(None, config)
    assert left.check() is None
    assert stackconf_telemetry.current() is None
    assert store.exists()
    left.undo()
    assert left.check() == "telemetry/meta-reference of this process has been configured anew since"
    trace.get_tracer("x").start_span("on again").end()
    stackconf_telemetry.current().force_flush()
    assert _rows(store) == [("on again",)]


def test_an_undo_is_verified(tmp_path):
    first, second = tmp_path / "1.db", tmp_path / "2.db"
    joined = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(first)))
    used = stackconf_telemetry.current()
    changed = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(second)))
    with pytest.raises(StackconfError, match="configured anew since; that is kept"):
        joined.undo()
    assert changed.check_undo() == (
        "telemetry/meta-reference of this process does not have again what it had before"
    )
    changed.undo()
    assert changed.check_undo() is None
    assert stackconf_telemetry.current() is used
    assert not second.exists()
    first.unlink()
    assert "trace store" in changed.check_undo()
    joined.undo()
    assert joined.check_undo() is None
    assert stackconf_telemetry.current() is None


def test_applying_the_same_again_loses_nothing(tmp_path):
    config = TelemetryConfig(sinks="sqlite", sqlite_db_path=str(tmp_path / "t.db"))
    for number in range(3):
        assert _apply(config).check() is None
        trace.get_tracer("x").start_span(f"span {number}").end()
        stackconf_telemetry.current().force_flush()
    assert _rows(tmp_path / "t.db") == [("span 0",), ("span 1",), ("span 2",)]


def test_a_second_provider_in_one_process_is_refused_and_changes_nothing():
    _apply(TelemetryConfig(sinks=""))
    used = stackconf_telemetry.current()
    other = Provider("telemetry", "other", "inline::meta-reference")
    with pytest.raises(TelemetryUnusable, match="through telemetry/meta-reference already"):
        plugin.apply_config(provider=other, config=TelemetryConfig(sinks=""))
    assert stackconf_telemetry.current() is used


def test_leaving_what_was_never_on_is_fine():
    left = _apply(None)
    assert left.detail == "telemetry was off in this process"
    left.undo()
    assert left.check_undo() is None


@pytest.mark.parametrize("kind", ["no database", "a folder"])
def test_an_unusable_store_is_refused_in_one_line_and_nothing_changes(tmp_path, kind):
    store = tmp_path / "t.db"
    if kind == "a folder":
        store.mkdir()
    else:
        store.write_text("certainly no database, but long enough to be read as one", encoding="utf-8")
    _apply(TelemetryConfig(sinks=""))
    used = stackconf_telemetry.current()
    with pytest.raises(TelemetryUnusable) as caught:
        _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store)))
    assert str(store) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert stackconf_telemetry.current() is used
    assert store.exists()


def test_spans_go_to_the_console_on_stderr(capsys):
    _apply(TelemetryConfig(sinks="console"))
    trace.get_tracer("x").start_span("seen").end()
    stackconf_telemetry.current().force_flush()
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["name"] == "seen"


def test_decorators_begin_a_span_per_call_also_of_async_functions(tmp_path):
    store = tmp_path / "t.db"
    tracer = trace.get_tracer("x")

    @tracer.start_as_current_span("plain")
    def plain():
        return trace.get_current_span().is_recording()

    @tracer.start_as_current_span("waiting")
    async def waiting():
        await asyncio.sleep(0)
        return trace.get_current_span().is_recording()

    assert not plain()
    _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(store)))
    assert plain()
    assert asyncio.run(waiting())
    with pytest.raises(KeyError), tracer.start_as_current_span("failing"):
        raise KeyError("x")
    stackconf_telemetry.current().force_flush()
    assert _rows(store, "SELECT name, status FROM spans ORDER BY start_time") == [
        ("plain", "UNSET"),
        ("waiting", "UNSET"),
        ("failing", "ERROR"),
    ]


# OTLP, against a real receiver


def test_spans_arrive_at_a_collector_as_otlp(collector):
    url, received = collector
    applied = _apply(
        TelemetryConfig(sinks="otel_trace", otel_exporter_otlp_endpoint=url, service_name="shop")
    )
    assert applied.detail == f"spans go to otel_trace ({url}/v1/traces)"
    assert applied.check() is None
    trace.get_tracer("x").start_span("sent").end()
    stackconf_telemetry.current().force_flush()
    assert _spans(received["/v1/traces"]) == ["sent"]
    resource = received["/v1/traces"][-1].resource_spans[0].resource
    assert {a.key: a.value.string_value for a in resource.attributes}["service.name"] == "shop"


def test_no_service_name_leaves_it_to_opentelemetry(collector):
    url, received = collector
    _apply(TelemetryConfig(sinks="otel_trace", otel_exporter_otlp_endpoint=url))
    trace.get_tracer("x").start_span("sent").end()
    stackconf_telemetry.current().force_flush()
    resource = received["/v1/traces"][-1].resource_spans[0].resource
    name = {a.key: a.value.string_value for a in resource.attributes}["service.name"]
    assert name.startswith("unknown_service")


def test_metrics_of_instruments_made_before_and_between_follow(collector):
    url, received = collector
    meter = metrics.get_meter("held")
    counter = meter.create_counter("requests")
    gauge = meter.create_gauge("load")
    histogram = meter.create_histogram("seconds", unit="s")
    up_down = meter.create_up_down_counter("open")
    meter.create_observable_gauge("observed", callbacks=[lambda _: [metrics.Observation(7)]])
    meter.create_observable_counter("counted", callbacks=[lambda _: [metrics.Observation(8)]])
    meter.create_observable_up_down_counter("moved", callbacks=[lambda _: [metrics.Observation(9)]])
    counter.add(100)  # nobody listens yet
    config = TelemetryConfig(sinks="otel_metric", otel_metric_endpoint=f"{url}/v1/metrics")
    for amount in (1, 2):  # the second round goes through a pipeline of its own
        _apply(config)
        counter.add(amount)
        gauge.set(3)
        histogram.record(0.5)
        up_down.add(-1)
        received["/v1/metrics"].clear()
        stackconf_telemetry.current().force_flush()
        found = {
            metric.name: metric
            for request in received["/v1/metrics"]
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }
        names = {"requests", "load", "seconds", "open", "observed", "counted", "moved"}
        assert set(found) == names
        assert found["requests"].sum.data_points[0].as_int == amount
        assert found["open"].sum.data_points[0].as_int == -1
        assert found["observed"].gauge.data_points[0].as_int == 7


def test_a_collector_that_is_away_stops_nothing_and_gets_spans_once_it_is_there(tmp_path):
    port = unused_port()
    url = f"http://user:secret@127.0.0.1:{port}"
    applied = _apply(
        TelemetryConfig(
            sinks="sqlite,otel_trace", otel_exporter_otlp_endpoint=url, sqlite_db_path=str(tmp_path / "t.db")
        )
    )
    assert applied.pending is None
    assert applied.check() is None
    assert f"127.0.0.1:{port}/v1/traces cannot be reached (connection refused)" in applied.detail
    assert "secret" not in applied.detail
    trace.get_tracer("x").start_span("waited").end()
    with _collector(port) as (_, received):
        stackconf_telemetry.current().force_flush()
        assert _spans(received["/v1/traces"]) == ["waited"]
        assert applied.check() is None
    assert _rows(tmp_path / "t.db") == [("waited",)]


def test_asking_a_collector_tells_a_wrong_path_from_a_good_one(collector):
    url, _ = collector
    assert reach(f"{url}/v1/traces") is None
    assert reach(f"{url}/wrong") == "answers 404: is its path right?"


def test_the_environment_can_disable_the_sdk_and_the_detail_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    applied = _apply(TelemetryConfig(sinks="sqlite", sqlite_db_path=str(tmp_path / "t.db")))
    assert "OTEL_SDK_DISABLED is set, so nothing is recorded" in applied.detail
    assert applied.check() is None


# In processes of their own


def _python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_importing_the_plugin_imports_no_opentelemetry():
    code = (
        "import sys, stackconf_telemetry, stackconf_telemetry.plugin\n"
        "print([m for m in sys.modules if m.split('.')[0] in {'opentelemetry', 'requests', 'asyncio', "
        "'sqlite3', 'pydantic'}])"
    )
    assert _python(code).stdout.strip() == "[]"


def test_a_provider_that_the_process_installed_itself_stays():
    code = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
own = TracerProvider(); trace.set_tracer_provider(own)
from stackconf import Provider
from stackconf_telemetry import plugin, current
from stackconf_telemetry.config import TelemetryConfig
provider = Provider("telemetry", "t", "inline::meta-reference")
print(plugin.apply_config(provider=provider, config=TelemetryConfig(sinks="console")).detail)
assert trace.get_tracer_provider() is own
current().tracer_provider.get_tracer("x").start_span("ours").end()
"""
    done = _python(code)
    assert "has an OpenTelemetry provider of its own for traces, which stays" in done.stdout
    assert '"name": "ours"' in done.stderr


def test_after_a_killed_apply_a_fresh_process_goes_either_way(tmp_path):
    code = """
        import os, signal, sys
        from opentelemetry import trace
        from stackconf import Provider
        from stackconf_telemetry import current, plugin
        from stackconf_telemetry.config import TelemetryConfig

        action, store, queue = sys.argv[1:]
        config = TelemetryConfig(
            sinks="sqlite", sqlite_db_path=store, max_queue_size=queue, max_export_batch_size=1
        )
        provider = Provider("telemetry", "meta-reference", "inline::meta-reference")
        applied = plugin.apply_config(provider=provider, config=config)
        trace.get_tracer("x").start_span(f"{action} {queue}").end()
        current().force_flush()
        if action == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        print(applied.check())
        applied.undo()
        print(applied.check_undo(), current())
    """
    store = tmp_path / "t.db"

    assert fresh_process(code, "killed", str(store), "20").returncode == -signal.SIGKILL
    for queue in ("20", "10"):
        done = fresh_process(code, "again", str(store), queue)
        assert done.stdout.splitlines() == ["None", "None None"], done.stderr
    assert _rows(store) == [("killed 20",), ("again 20",), ("again 10",)]


def test_spans_that_wait_are_written_when_the_process_ends(tmp_path):
    store = tmp_path / "t.db"
    _python(
        "from opentelemetry import trace\n"
        "from stackconf import Provider\n"
        "from stackconf_telemetry import plugin\n"
        "from stackconf_telemetry.config import TelemetryConfig\n"
        f"config = TelemetryConfig(sinks='sqlite', sqlite_db_path={str(store)!r})\n"
        "plugin.apply_config(provider=Provider('telemetry', 't', 'x'), config=config)\n"
        "trace.get_tracer('x').start_span('last').end()\n"
    )
    assert _rows(store) == [("last",)]


def test_entry_points_advertise_what_the_plugin_provides():
    advertised = {
        entry.name
        for entry in entry_points(group="stackconf.providers")
        if entry.value.startswith("stackconf_telemetry")
    }
    assert advertised == {kind.key for kind in plugin.provides}


def test_a_home_folder_in_the_path_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    _apply(TelemetryConfig(sinks="sqlite"))
    assert (Path(tmp_path) / ".llama/runtime/trace_store.db").exists()
