"""OpenTelemetry's process-wide providers, made changeable.

`trace.set_tracer_provider` and `metrics.set_meter_provider` work once per process. So they are
given, once, a provider that hands every call on to the pipeline in use now, and telemetry is
changed, undone and switched off by exchanging that pipeline. Tracers, meters and instruments that
code obtained earlier follow along. Only OpenTelemetry's public interfaces are used.
"""

from __future__ import annotations

import inspect
import threading
from contextlib import AbstractContextManager, ContextDecorator
from functools import wraps
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from stackconf_telemetry.pipeline import Pipeline

_lock = threading.Lock()
_pipeline: Pipeline | None = None
_observables: list[Callable[[], object]] = []


def current() -> Pipeline | None:
    """The pipeline in use, or `None` while telemetry is off."""
    return _pipeline


def use(pipeline: Pipeline | None) -> None:
    """Make `pipeline` the one in use; the one before stays open.

    A span begun before the exchange ends in the pipeline it began in.
    """
    global _pipeline  # noqa: PLW0603 - OpenTelemetry's place is one for the process too
    with _lock:
        _pipeline = pipeline
        for create in _observables:
            create()


def install() -> tuple[str, ...]:
    """Put the changeable providers into OpenTelemetry's process-wide place.

    Returns the signals that cannot be had since the process installed a provider of its own:
    `"traces"`, `"metrics"`, or none. OpenTelemetry lets nobody replace those.
    """
    with _lock:
        if trace.get_tracer_provider() is not _TRACERS:
            trace.set_tracer_provider(_TRACERS)
        if metrics.get_meter_provider() is not _METERS:
            metrics.set_meter_provider(_METERS)
    taken = (
        "traces" if trace.get_tracer_provider() is not _TRACERS else "",
        "metrics" if metrics.get_meter_provider() is not _METERS else "",
    )
    return tuple(signal for signal in taken if signal)


class _Follower:
    """Finds a thing in the pipeline in use, and looks again when that has been exchanged."""

    def __init__(self, find: Callable[[Pipeline | None], Any]) -> None:
        self._find = find
        self._found: tuple[Pipeline | None, Any] | None = None

    def __call__(self) -> Any:
        found, pipeline = self._found, _pipeline
        if found is None or found[0] is not pipeline:
            found = self._found = (pipeline, self._find(pipeline))
        return found[1]


class _Tracers(trace.TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _Tracer(_Follower(lambda pipeline: _tracers_of(pipeline).get_tracer(*args, **kwargs)))


class _Tracer(trace.Tracer):
    def __init__(self, real: _Follower) -> None:
        self._real = real

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        span: trace.Span = self._real().start_span(*args, **kwargs)
        return span

    # The base class wraps this method in a helper of its own that is not public.
    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return _Scope(lambda: self._real().start_as_current_span(*args, **kwargs))


class _Scope(ContextDecorator):
    """A span's `with` block; as a decorator it begins a new span, in the pipeline of that moment, on
    every call, and it waits for an `async def`.
    """

    def __init__(self, begin: Callable[[], AbstractContextManager[trace.Span]]) -> None:
        self._begin = begin
        self._running: AbstractContextManager[trace.Span] | None = None

    def __enter__(self) -> trace.Span:
        self._running = self._begin()
        return self._running.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        running, self._running = self._running, None
        return None if running is None else running.__exit__(kind, error, traceback)

    def __call__(self, function: Any) -> Any:
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def wait(*args: Any, **kwargs: Any) -> Any:
                with self._begin():
                    return await function(*args, **kwargs)

            return wait

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._begin():
                return function(*args, **kwargs)

        return call


class _Meters(metrics.MeterProvider):
    def get_meter(self, *args: Any, **kwargs: Any) -> metrics.Meter:
        real = _Follower(lambda pipeline: _meters_of(pipeline).get_meter(*args, **kwargs))
        name = args[0] if args else kwargs.get("name", "")
        return _Meter(str(name), real)


class _Meter(metrics.Meter):
    def __init__(self, name: str, real: _Follower) -> None:
        super().__init__(name)
        self._real = real

    def _follow(self, make: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Follower:
        follower = _Follower(lambda _: getattr(self._real(), make)(*args, **kwargs))
        follower()
        return follower

    def create_counter(self, *args: Any, **kwargs: Any) -> metrics.Counter:
        return _Counter(self._follow("create_counter", args, kwargs))

    def create_up_down_counter(self, *args: Any, **kwargs: Any) -> metrics.UpDownCounter:
        return _UpDownCounter(self._follow("create_up_down_counter", args, kwargs))

    def create_histogram(self, *args: Any, **kwargs: Any) -> metrics.Histogram:
        return _Histogram(self._follow("create_histogram", args, kwargs))

    def create_gauge(self, *args: Any, **kwargs: Any) -> Any:
        return _Gauge(self._follow("create_gauge", args, kwargs))

    def _observe(self, make: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Observables are asked, not told: each pipeline must know them as soon as it is used."""
        follower = self._follow(make, args, kwargs)
        _observables.append(follower)
        return follower()

    def create_observable_counter(self, *args: Any, **kwargs: Any) -> Any:
        return self._observe("create_observable_counter", args, kwargs)

    def create_observable_up_down_counter(self, *args: Any, **kwargs: Any) -> Any:
        return self._observe("create_observable_up_down_counter", args, kwargs)

    def create_observable_gauge(self, *args: Any, **kwargs: Any) -> Any:
        return self._observe("create_observable_gauge", args, kwargs)


class _Counter(metrics.Counter):
    def __init__(self, real: _Follower) -> None:
        self._real = real

    def add(self, *args: Any, **kwargs: Any) -> None:
        self._real().add(*args, **kwargs)


class _UpDownCounter(metrics.UpDownCounter):
    def __init__(self, real: _Follower) -> None:
        self._real = real

    def add(self, *args: Any, **kwargs: Any) -> None:
        self._real().add(*args, **kwargs)


class _Histogram(metrics.Histogram):
    def __init__(self, real: _Follower) -> None:
        self._real = real

    def record(self, *args: Any, **kwargs: Any) -> None:
        self._real().record(*args, **kwargs)


# OpenTelemetry exports the synchronous gauge's interface under this name only.
class _Gauge(metrics._Gauge):  # noqa: SLF001
    def __init__(self, real: _Follower) -> None:
        self._real = real

    def set(self, *args: Any, **kwargs: Any) -> None:
        self._real().set(*args, **kwargs)


def _tracers_of(pipeline: Pipeline | None) -> trace.TracerProvider:
    return trace.NoOpTracerProvider() if pipeline is None else pipeline.tracer_provider


def _meters_of(pipeline: Pipeline | None) -> metrics.MeterProvider:
    return metrics.NoOpMeterProvider() if pipeline is None else pipeline.meter_provider


_TRACERS = _Tracers()
_METERS = _Meters()
