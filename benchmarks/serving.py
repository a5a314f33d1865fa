"""The HTTP API: reads, registrations, starting up, beside what does the least that can be done.

Each server is a process of its own on a port of its own, asked over one connection that is kept
open. Where a figure is CPU time it is the server's, by request, which what else the machine does
hardly moves; wall time is beside it. `stackconf serve` runs as a user runs it: with its log,
its rules of who may ask, its metrics.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from time import monotonic, perf_counter, sleep
from typing import Any

import psutil
import yaml
from attrs import frozen
from durable import raw_write
from harness import Row
from workload import API, stack_text

from stackconf import Client

PROVIDERS = 100
REQUESTS, ROUNDS = 1000, 7
UPSTREAM_REQUESTS = 10
WRITES = 1000
STARTS = 5
BARE_SHARE, TIMES_UPSTREAM, TIMES_WRITE = 0.8, 20.0, 10.0
UPSTREAM_PYTHON = "LLAMA_STACK_PYTHON"
"""The Python of an environment that has llama-stack 0.2.12 with what its server needs, where this has not."""

INSPECT, LISTED, HEALTH, REGISTER = (
    "/v1/inspect/configurations",
    "/v1/providers",
    "/v1/health",
    "/v1/configurations/register",
)

_BARE = """
import sys, uvicorn
from pathlib import Path
from fastapi import FastAPI, Response
app = FastAPI()
body = Path(sys.argv[1]).read_bytes()

@app.get("/v1/inspect/configurations")
async def inspect():
    return Response(body, media_type="application/json")

@app.get("/v1/health")
async def health():
    return Response(b'{"status":"OK"}', media_type="application/json")

uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="error", server_header=False)
"""

_PLUGIN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).resolve().parent)!r})
from durable import Applying
from workload import API, Config
from stackconf import ProviderType, hookimpl

provides = (ProviderType(API, "remote::type-0", Config),)
_plugin = Applying(provides)
default_config = _plugin.default_config
validate_user_config = _plugin.validate_user_config
apply_config = _plugin.apply_config
"""


@frozen
class Cost:
    """What one request cost: seconds of the server's CPU, and seconds until its answer was there."""

    cpu: float
    wall: float


class Target:
    """A server, and a connection that is kept open."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = psutil.Process(process.pid)
        self.port = port
        _wait(port, process)
        self._socket: socket.socket | None = None

    def connect(self) -> socket.socket:
        """A new connection, in place of the one before."""
        self.close()
        self._socket = socket.create_connection(("127.0.0.1", self.port))
        return self._socket

    def close(self) -> None:
        """Leave the server."""
        if self._socket is not None:
            self._socket.close()

    def cpu(self) -> float:
        """CPU seconds so far."""
        times = self.process.cpu_times()
        return times.user + times.system

    def ask(self, request: bytes) -> bytes:
        """The answer to one request: head and body."""
        connection = self._socket or self.connect()
        connection.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += _more(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        while len(body) < length:
            body += _more(connection)
        return head + b"\r\n\r\n" + body

    def body(self, request: bytes) -> bytes:
        """The body of an answer that is fine."""
        head, _, body = self.ask(request).partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        return body

    def cost(self, request: bytes, requests: int = REQUESTS) -> Cost:
        """The mean cost of some requests, over a new connection: the servers close idle ones."""
        self.connect()
        cpu, wall = self.cpu(), perf_counter()
        for _ in range(requests):
            self.ask(request)
        return Cost(max(self.cpu() - cpu, 0.005) / requests, (perf_counter() - wall) / requests)


def _more(connection: socket.socket) -> bytes:
    found = connection.recv(65536)
    assert found, "the server closed the connection"
    return found


def get(path: str, **headers: str) -> bytes:
    """A request as bytes."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode()


def post(path: str, data: object) -> bytes:
    """A request with a JSON body."""
    body = json.dumps(data).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def serving() -> Iterator[Row]:
    """Reads, registrations, start-up and memory."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        yield from _reads(folder)
        yield from _upstream(folder)
        yield from _registering(folder)
        yield from _starting(folder)


# Reads


def _reads(folder: Path) -> Iterator[Row]:
    with _ours(folder / "reads", PROVIDERS) as ours:
        answer = ours.ask(get(INSPECT))
        (folder / "body.json").write_bytes(answer.partition(b"\r\n\r\n")[2])
        again = get(INSPECT, If_None_Match=_etag(answer))
        assert b" 304 " in ours.ask(again).split(b"\r\n")[0]
        with _server([*_bare(), str(folder / "body.json")]) as bare:
            subject = f"GET inspect, {PROVIDERS} providers"
            known = f"{subject}, 304"
            reads = {subject: get(INSPECT), known: again}
            found = _in_turn(
                {name: lambda request=request: ours.cost(request) for name, request in reads.items()}
                | {"bare": lambda: bare.cost(get(INSPECT))}
            )
            for name in reads:
                note = f"{1 / _ratio(found, name, 'bare')[0]:.2f} of its requests per CPU second"
                yield _row(name, "a bare FastAPI route", found, "bare", 1 / BARE_SHARE, note)
            yield _own_overhead(ours, bare)
            yield from _client(ours)


def _own_overhead(ours: Target, bare: Target) -> Row:
    name = "GET health: rules, metrics, log, route"
    found = _in_turn({name: lambda: ours.cost(get(HEALTH)), "bare": lambda: bare.cost(get(HEALTH))})
    mine, other = (statistics.median(each.cpu for each in found[which]) for which in (name, "bare"))
    note = f"{(mine - other) * 1e6:.0f} us more"
    return _row(name, "a bare FastAPI route", found, "bare", note=note)


def _client(ours: Target) -> Iterator[Row]:
    """This process's own CPU time: what `Client` costs over the HTTP client that it uses."""
    import httpx

    url = f"http://127.0.0.1:{ours.port}"
    with httpx.Client() as plain, Client(url) as client:

        def inspected() -> object:
            return client.configurations.inspect()

        def asked() -> object:
            return plain.get(url + INSPECT).json()

        assert inspected() == asked()
        name = f"Client: inspect, {PROVIDERS} providers"
        found = _in_turn({name: lambda: _own_cost(inspected), "httpx": lambda: _own_cost(asked)})
        yield _row(name, "httpx and json", found, "httpx")


def _own_cost(function: Callable[[], object], calls: int = 100) -> Cost:
    process = psutil.Process()
    before, wall = process.cpu_times(), perf_counter()
    for _ in range(calls):
        function()
    after = process.cpu_times()
    cpu = after.user + after.system - before.user - before.system
    return Cost(max(cpu, 0.005) / calls, (perf_counter() - wall) / calls)


# llama-stack's own server


def _upstream(folder: Path) -> Iterator[Row]:
    python = os.environ.get(UPSTREAM_PYTHON) or (sys.executable if find_spec("llama_stack") else None)
    if python is None:
        yield Row("serving", f"skipped: no llama-stack here, and no {UPSTREAM_PYTHON}", "", None, None)
        return
    path = folder / "llama-stack.yaml"
    path.write_text(_upstream_stack(folder), encoding="utf-8")
    command = [python, "-m", "llama_stack.distribution.server.server", "--config", str(path), "--port"]
    quiet = {"LLAMA_STACK_LOGGING": "all=error", "HOME": str(folder)}
    with _server(command, quiet) as upstream, _ours(folder / "beside", PROVIDERS) as ours:
        upstream.connect()
        assert len(json.loads(upstream.body(get(LISTED)))["data"]) == PROVIDERS
        assert len(json.loads(ours.body(get(LISTED)))["data"]) == PROVIDERS
        paths = {"GET providers": LISTED, "GET inspect": INSPECT}
        found = _in_turn(
            {name: lambda path=path: ours.cost(get(path)) for name, path in paths.items()}
            | {"upstream": lambda: upstream.cost(get(LISTED), UPSTREAM_REQUESTS)}
        )
        for name in paths:
            by_cpu, by_wall = 1 / _ratio(found, name, "upstream")[0], _times_faster(found, name, "upstream")
            yield Row(
                "serving",
                f"{name}, {PROVIDERS} providers",
                "llama-stack 0.2.12: GET providers",
                *(100 * each for each in _ratio(found, name, "upstream")),
                "%",
                100 / TIMES_UPSTREAM,
                f"{by_cpu:.0f} times its requests per CPU second, {by_wall:.0f} times by wall time",
            )


def _upstream_stack(folder: Path) -> str:
    """Providers of a kind that has no health check and needs nothing: the fastest that it can be."""
    config = {"api_key": "key", "max_results": 3}
    providers = [
        {"provider_id": f"provider-{number}", "provider_type": "remote::tavily-search", "config": config}
        for number in range(PROVIDERS)
    ]
    data = {
        "version": "2",
        "image_name": "bench",
        "apis": ["tool_runtime"],
        "providers": {"tool_runtime": json.loads(json.dumps(providers))},
        "metadata_store": {"type": "sqlite", "db_path": str(folder / "registry.db")},
        "server": {"host": "127.0.0.1"},
    }
    return yaml.safe_dump(data, sort_keys=False)


# Registering


def _registering(folder: Path) -> Iterator[Row]:
    for providers in (10, PROVIDERS):
        with _ours(folder / f"register-{providers}", providers) as ours:
            for name in ("base", "top"):  # what is registered as `base` is hidden by `top`
                ours.body(post(REGISTER, {"config": _given(1), "name": name, "apply": True}))
            for name, what in (("base", "nothing"), ("top", "one provider")):
                register = _registration(ours, name)
                assert len(register()["plan"]["changes"]) == (name == "top")
                subject = f"register over HTTP, {what} to change of {providers}"
                yield from _percentiles(subject, register, folder / f"{name}.db")


def _registration(ours: Target, name: str) -> Callable[[], Any]:
    numbers = count(2)

    def register() -> Any:
        return json.loads(ours.body(post(REGISTER, {"config": _given(next(numbers)), "name": name})))

    return register


def _percentiles(subject: str, register: Callable[[], object], path: Path) -> Iterator[Row]:
    write = raw_write(path, json.dumps(_given(1)))
    mine, raw = [], []
    for _ in range(WRITES):
        for times, function in ((raw, write), (mine, register)):
            began = perf_counter()
            function()
            times.append(perf_counter() - began)
    note = "; ".join(
        f"{name} {_at(times, 0.5) * 1e3:.2f} ms, p99 {_at(times, 0.99) * 1e3:.2f} ms"
        for name, times in (("register", mine), ("raw", raw))
    )
    path.unlink()
    middle = _at(mine, 0.5) / _at(raw, 0.5)
    yield Row("serving", f"{subject}: middle", "sqlite3, WAL, FULL: middle", middle, min(mine) / min(raw))
    yield Row(
        "serving",
        f"{subject}: p99",
        "sqlite3, WAL, FULL: p99",
        _at(mine, 0.99) / _at(raw, 0.99),
        _at(mine, 0.99) / _at(raw, 0.5),
        "x",
        TIMES_WRITE,
        f"{note}; `best`: to its middle",
    )


def _at(times: Sequence[float], share: float) -> float:
    return sorted(times)[min(int(len(times) * share), len(times) - 1)]


def _given(number: int) -> dict[str, object]:
    config = {"threads": 1 + number % 500, "timeout_s": float(number)}
    return {API: [{"provider_id": "provider-0", "config": config}]}


# Starting


@frozen
class Start:
    """Until a server answered: CPU seconds and seconds; then its memory (bytes, its own pages)."""

    cpu: float
    wall: float
    memory: int


def _starting(folder: Path) -> Iterator[Row]:
    (folder / "body.json").write_bytes(b"{}")
    found: dict[str, list[Start]] = {}
    for turn in range(STARTS + 1):
        for name, providers in (("one provider", 1), (f"{PROVIDERS} providers", PROVIDERS), ("bare", 0)):
            began = perf_counter()
            with ExitStack() as stack:
                target = stack.enter_context(
                    _ours(folder / f"start-{turn}-{providers}", providers)
                    if providers
                    else _server([*_bare(), str(folder / "body.json")])
                )
                target.body(get(INSPECT))
                wall = perf_counter() - began
                start = Start(target.cpu(), wall, target.process.memory_full_info().uss)
            if turn:  # the first turn warms the file cache and writes the byte code
                found.setdefault(name, []).append(start)
    bare = found.pop("bare")
    for name, starts in found.items():
        for what, of in (("CPU until serve answers", "cpu"), ("time until it does", "wall")):
            yield _start_row(f"{what}, {name}", of, starts, bare, 1e3, "ms")
        yield _start_row(f"memory of serve, {name}", "memory", starts, bare, 2**-20, "MiB")


def _start_row(
    subject: str, of: str, mine: Sequence[Start], bare: Sequence[Start], scale: float, unit: str
) -> Row:
    ours, theirs = ([float(getattr(each, of)) for each in which] for which in (mine, bare))
    middle, other = statistics.median(ours), statistics.median(theirs)
    note = f"{middle * scale:.0f} {unit} and {other * scale:.0f} {unit}"
    return Row(
        "serving", subject, "uvicorn, a bare FastAPI app", middle / other, min(ours) / min(theirs), note=note
    )


# Measuring


def _in_turn(subjects: Mapping[str, Callable[[], Cost]]) -> dict[str, list[Cost]]:
    found: dict[str, list[Cost]] = {name: [] for name in subjects}
    for turn in range(ROUNDS + 1):
        for name, measure in subjects.items():
            cost = measure()
            if turn:
                found[name].append(cost)
    return found


def _ratio(found: Mapping[str, Sequence[Cost]], name: str, base: str) -> tuple[float, float]:
    """The median of the ratios of CPU time, round by round, and that of the two best."""
    pairs = zip(found[name], found[base], strict=True)
    best = min(each.cpu for each in found[name]) / min(each.cpu for each in found[base])
    return statistics.median(mine.cpu / other.cpu for mine, other in pairs), best


def _times_faster(found: Mapping[str, Sequence[Cost]], name: str, base: str) -> float:
    return statistics.median(
        other.wall / mine.wall for mine, other in zip(found[name], found[base], strict=True)
    )


def _row(
    subject: str,
    against: str,
    found: Mapping[str, Sequence[Cost]],
    base: str,
    limit: float | None = None,
    note: str = "",
) -> Row:
    wall = f"{_times_faster(found, subject, base):.2f} by wall time"
    return Row(
        "serving",
        subject,
        against,
        *_ratio(found, subject, base),
        "x",
        limit,
        f"{note}; {wall}" if note else wall,
    )


def _etag(answer: bytes) -> str:
    return next(
        line.partition(b": ")[2].decode()
        for line in answer.split(b"\r\n")
        if line.lower().startswith(b"etag")
    )


# Servers


@contextmanager
def _ours(folder: Path, providers: int) -> Iterator[Target]:
    """`stackconf serve` on a new stack, everything applied."""
    folder.mkdir()
    (folder / "stack.yaml").write_text(stack_text(providers), encoding="utf-8")
    (folder / "plugin.py").write_text(_PLUGIN, encoding="utf-8")
    serve = "import sys; sys.argv[0] = 'stackconf'; from stackconf.cli.main import run; run()"
    command = [sys.executable, "-c", serve, "serve", "-s", str(folder / "stack.yaml")]
    environ = {
        "STACKCONF_CONFIG_HOME": str(folder / "settings"),
        "STACKCONF_DISABLED_PLUGINS": "host,nvidia,amd,intel,apple",
    }
    with _server([*command, "--plugin", str(folder / "plugin.py"), "--port"], environ) as target:
        until = monotonic() + 60
        while (ready := json.loads(target.body(get("/v1/ready"))))["applying"] or not ready["settled"]:
            assert monotonic() < until, "the first apply does not end"
            sleep(0.02)
        yield target


def _bare() -> list[str]:
    return [sys.executable, "-c", _BARE]


@contextmanager
def _server(command: Sequence[str], environ: Mapping[str, str] | None = None) -> Iterator[Target]:
    port = _free_port()
    process = subprocess.Popen(
        [*command, str(port)],
        env={**os.environ, **(environ or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        target = Target(process, port)
        with closing(target):
            yield target
    finally:
        process.terminate()
        process.wait(60)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    until = monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, "the server did not start"
            assert monotonic() < until, "the server does not answer"
            sleep(0.01)
        else:
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
