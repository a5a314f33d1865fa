"""What is measured about a server, and how Prometheus is told.

Counting costs each request a microsecond or two; what there is to say about the stack is looked up
when somebody asks. Labels are bounded: a path that no route serves is never one.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import TYPE_CHECKING, get_args

from attrs import frozen

from stackconf._version import __version__
from stackconf.errors import StackconfError
from stackconf.server.tally import Tally
from stackconf.status import Standing

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric
    from prometheus_client.metrics_core import HistogramMetricFamily
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from stackconf.server.hosted import Hosted
    from stackconf.status import StackStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NO_ROUTE = "(none)"
"""The label of all paths that no route serves."""
OTHER_METHOD = "(other)"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_CLASSES = ("", "1xx", "2xx", "3xx", "4xx", "5xx")
_FAILED = 500


class Requests:
    """The requests of one server so far, and those that are being answered."""

    def __init__(self) -> None:
        self.tally = Tally(_BOUNDS)
        """By method, route and class of status."""
        self.in_flight = 0


class Measured:
    """The application with its requests counted. `plain` are the routes whose path is their template."""

    def __init__(self, app: ASGIApp, requests: Requests, plain: frozenset[str]) -> None:
        self._app, self._requests, self._plain = app, requests, plain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it when all of its answer is out, or it came to nothing."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        requests, began, status = self._requests, perf_counter(), _FAILED

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        requests.in_flight += 1
        try:
            await self._app(scope, receive, noting)
        finally:
            requests.in_flight -= 1
            method = scope["method"] if scope["method"] in _METHODS else OTHER_METHOD
            key = method, self._route(scope), _CLASSES[status // 100]
            requests.tally.add(key, perf_counter() - began)

    def _route(self, scope: Scope) -> str:
        if scope["path"] in self._plain:
            path: str = scope["path"]
            return path
        return getattr(scope.get("route"), "path_format", NO_ROUTE)


@frozen
class Standings:
    """What a stack says about itself at one moment."""

    status: StackStatus
    pending: int
    valid: bool


class Metrics:
    """All that is told about one server and its stack, in a registry of its own."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self.requests = Requests()
        self._registry: CollectorRegistry | None = None

    def text(self) -> bytes:
        """What Prometheus reads. Looks at the stack, so it may take as long as `/v1/status`."""
        from prometheus_client import CollectorRegistry, generate_latest

        if self._registry is None:
            registry = CollectorRegistry()
            registry.register(self)
            self._registry = registry
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every metric as of now."""
        yield from self._of_requests()
        yield from self._of_applies()
        yield from self._of_process()
        try:
            found = self._look()
        except StackconfError:
            yield _gauge("stack_readable", "Whether the stack and its store could be read just now.", 0)
            return
        yield _gauge("stack_readable", "Whether the stack and its store could be read just now.", 1)
        yield from self._of_stack(found)

    def _look(self) -> Standings:
        with self._hosted.stack() as stack:
            valid = not stack.resolution.errors and not stack.store.trouble()
            return Standings(stack.status(), len(self._hosted.pending()), valid)

    def _of_requests(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        requests, labels = self.requests, ("method", "route", "status")
        count = CounterMetricFamily("stackconf_http_requests", "Requests answered.", labels=labels)
        for key, counts, _ in requests.tally:
            count.add_metric(key, sum(counts))
        yield count
        yield _histogram(
            "http_request_duration", "Until the whole answer was out.", requests.tally, labels[:2]
        )
        yield _gauge("http_requests_in_flight", "Requests that are being answered.", requests.in_flight)

    def _of_applies(self) -> Iterator[Metric]:
        applies = self._hosted.applies
        about = "Applies that this process carried out, by outcome."
        yield _histogram("apply_duration", about, applies.tally, ("outcome",))
        yield _gauge("applying", "Whether an apply runs.", applies.running is not None)

    def _of_process(self) -> Iterator[Metric]:
        versions = {"version": __version__, "python": platform.python_version()}
        yield _by_label("build_info", "What serves.", {tuple(versions.values()): 1}, tuple(versions))
        wrong = self._hosted.file.problem is not None
        about = "Whether the stack file could not be taken when it was last read; the one before goes on."
        yield _gauge("reload_problem", about, wrong)

    def _of_stack(self, found: Standings) -> Iterator[Metric]:
        status = found.status
        standings: dict[tuple[str, ...], float] = {
            (each,): len(status.of(each)) for each in get_args(Standing)
        }
        yield _by_label("providers", "Providers by where they stand.", standings, ("standing",))
        yield _gauge(
            "providers_pending", "Providers that could not be reached, and are retried.", found.pending
        )
        yield _gauge("head_revision", "The newest revision.", status.revision)
        applied = [each.applied for each in status.providers if each.applied is not None]
        if applied:
            about = "The newest revision that brought what a provider runs with."
            yield _gauge("applied_revision", about, max(applied))
        yield _gauge("settled", "Whether every provider runs with what is wanted.", status.settled)
        ready = found.valid and not self._hosted.applies.closed
        yield _gauge("ready", "Whether the stack can be applied, as /v1/ready says.", ready)


def _gauge(name: str, about: str, value: float) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    return GaugeMetricFamily(f"stackconf_{name}", about, value=value)


def _by_label(
    name: str, about: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...]
) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"stackconf_{name}", about, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, about: str, tally: Tally, labels: tuple[str, ...]) -> HistogramMetricFamily:
    """A tally by the first labels of its keys, summed over the others."""
    from prometheus_client.core import HistogramMetricFamily

    bounds = [*(str(each) for each in tally.bounds), "+Inf"]
    summed: dict[tuple[str, ...], tuple[list[int], float]] = {}
    for whole, counts, seconds in tally:
        key = whole[: len(labels)]
        before, so_far = summed.get(key, ([0] * len(bounds), 0.0))
        summed[key] = [one + other for one, other in zip(before, counts, strict=True)], so_far + seconds
    family = HistogramMetricFamily(f"stackconf_{name}_seconds", about, labels=labels)
    for key, (counts, seconds) in summed.items():
        up_to = [sum(counts[: place + 1]) for place in range(len(counts))]
        family.add_metric(key, list(zip(bounds, up_to, strict=True)), seconds)
    return family
