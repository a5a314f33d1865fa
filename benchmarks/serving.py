"""The HTTP API: requests per second, beside a bare FastAPI route that returns the same bytes from memory.

Each server is a process of its own with the same settings of uvicorn. The figure is requests per
second of the server's CPU time, which what else the machine does hardly moves; wall time is beside it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, perf_counter, sleep

import psutil
from harness import Row
from workload import stack_text

PROVIDERS = 100
REQUESTS, ROUNDS = 1500, 7
BARE_SHARE, TIMES_UPSTREAM, TIMES_WRITE = 0.8, 20.0, 10.0

_BARE = """
import sys, uvicorn
from pathlib import Path
from fastapi import FastAPI, Response
app = FastAPI()
body = Path(sys.argv[1]).read_bytes()

@app.get("/v1/inspect/configurations")
async def inspect():
    return Response(body, media_type="application/json")

uvicorn.run(app, port=int(sys.argv[2]), access_log=False, log_level="error", server_header=False)
"""

_OURS = """
import sys, logging
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from workload import HARDWARE, Plugin
from durable import Applying
from stackconf import ProviderType, Stack
from stackconf.registry.registry import Registry
from stackconf.server.serving import Listening, serve
import workload

def opening(store):
    kinds = [ProviderType(workload.API, "remote::t0", workload.Config)]
    registry = Registry(plugins=[Applying(kinds)], entry_points=False)
    return Stack.open(sys.argv[2], registry=registry, hardware=HARDWARE, store=store)

serve(opening, Listening(port=int(sys.argv[3])))
"""


class Target:
    """A server, and a connection that is kept open."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = psutil.Process(process.pid)
        self.socket = _connected(port, process)
        self.port = port

    def cpu(self) -> float:
        """CPU seconds so far."""
        times = self.process.cpu_times()
        return times.user + times.system

    def ask(self, request: bytes) -> bytes:
        """The answer to one request: head and body."""
        self.socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self.socket.recv(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        while len(body) < length:
            body += self.socket.recv(65536)
        return head + b"\r\n\r\n" + body

    def measure(self, request: bytes, count: int = REQUESTS) -> tuple[float, float]:
        """Requests per CPU second of the server, and per second."""
        cpu, wall = self.cpu(), perf_counter()
        for _ in range(count):
            self.ask(request)
        return count / max(self.cpu() - cpu, 0.001), count / (perf_counter() - wall)


def get(path: str, **headers: str) -> bytes:
    """A request as bytes."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode()


def serving() -> Iterator[Row]:
    """Reads of the effective configuration of 100 providers."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        (folder / "stack.yaml").write_text(stack_text(PROVIDERS), encoding="utf-8")
        here = str(Path(__file__).resolve().parent)
        with _server(_OURS, here, str(folder / "stack.yaml")) as ours:
            inspect = get("/v1/inspect/configurations")
            answer = ours.ask(inspect)
            body = folder / "body.json"
            body.write_bytes(answer.partition(b"\r\n\r\n")[2])
            etag = next(
                line.partition(b": ")[2].decode()
                for line in answer.split(b"\r\n")
                if line.lower().startswith(b"etag")
            )
            again = get("/v1/inspect/configurations", If_None_Match=etag)
            assert b" 304 " in ours.ask(again).split(b"\r\n")[0]
            with _server(_BARE, str(body)) as bare:
                yield from _compared(ours, bare, inspect, again)


def _compared(ours: Target, bare: Target, inspect: bytes, again: bytes) -> Iterator[Row]:
    shares: dict[str, list[tuple[float, float]]] = {"200": [], "304": []}
    for target in (ours, bare):
        target.measure(inspect)
    for _ in range(ROUNDS):
        base = bare.measure(inspect)
        for name, request in (("200", inspect), ("304", again)):
            mine = ours.measure(request)
            shares[name].append((mine[0] / base[0], mine[1] / base[1]))
    for name, found in shares.items():
        cpu = sorted(each[0] for each in found)
        wall = sorted(each[1] for each in found)
        yield Row(
            "serving",
            f"GET inspect, {PROVIDERS} providers, {name}",
            "a bare FastAPI route with the same bytes: our share of its requests per CPU second",
            cpu[len(cpu) // 2],
            cpu[-1],
            note=f"by wall time {wall[len(wall) // 2]:.2f}; at least {BARE_SHARE}",
        )


@contextmanager
def _server(program: str, *arguments: str) -> Iterator[Target]:
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments, str(port)], stderr=subprocess.DEVNULL
    )
    try:
        yield Target(process, port)
    finally:
        process.terminate()
        process.wait(30)


def _connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket:
    until = monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            assert process.poll() is None, "the server did not start"
            assert monotonic() < until, "the server does not answer"
            sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    for row in serving():
        print(row)
