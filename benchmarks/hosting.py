"""A runtime's real server under stackconf, beside the same server on its own.

Both read the same file, with a stand-in for the inference backend, and say as much in their logs. A
start is timed until `/v1/health` answers. A change of one provider's address is timed from the
registration to the report of the apply; without stackconf it takes a restart of the server.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import perf_counter, sleep

from harness import Row

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugins" / "ogx" / "tests"))

from hosting_kit import FIELDS, FILES, MODEL, MODELS, backend, free_port
from serving import Target, get, post

STARTS, SWAPS, ROUNDS, REQUESTS = 5, 20, 15, 40
START_SHARE, TIMES_RESTART, SWAP_MS, OVERHEAD = 1.1, 70.0, 100.0, 1.02
PYTHONS = {"llama-stack": "LLAMA_STACK_PYTHON", "ogx": "OGX_PYTHON"}
"""For each runtime, the variable with the Python of an environment that has it and stackconf-ogx."""

_OURS = "import sys; sys.argv[0] = 'stackconf'; from stackconf.cli.main import run; run()"
_THEIRS = {
    "llama-stack": "import sys; from llama_stack.cli.llama import main; sys.exit(main())",
    "ogx": "import sys; from ogx.cli.ogx import main; sys.exit(main())",
}
_PATIENCE = 90.0


def hosting() -> Iterator[Row]:
    """Starts, changes, and requests for the server's own routes, with both runtimes."""
    for runtime, variable in PYTHONS.items():
        python = os.environ.get(variable)
        if python is None:
            yield Row("hosting", f"skipped: {runtime}; no {variable}", "", None, None)
            continue
        with tempfile.TemporaryDirectory() as name, backend("A") as first, backend("B") as second:
            servers = _Servers(Path(name), runtime, python, first)
            starts = list(_starts(servers))
            yield _start_row(runtime, starts)
            restart = statistics.median(each["theirs"] for each in starts) + servers.stop_seconds()
            yield from _changes(servers, (second, first), restart)
            yield from _requests(servers)


class _Servers:
    """The same file, served by either."""

    def __init__(self, folder: Path, runtime: str, python: str, first: str) -> None:
        self.runtime, self._folder = runtime, folder
        self._stops: list[float] = []
        for name in ("ours", "theirs"):
            own = folder / name
            own.mkdir()
            (own / "stack.yaml").write_text(FILES[runtime].format(backend=first, folder=own, model=MODEL))
        run = [python, "-W", "ignore", "-c", _THEIRS[runtime], "stack", "run", "stack.yaml", "--port"]
        serve = [python, "-W", "ignore", "-c", _OURS, "serve", "--runtime", runtime, "-s", "stack.yaml"]
        self._commands: Mapping[str, list[str]] = {"theirs": run, "ours": [*serve, "--port"]}

    @contextmanager
    def running(self, name: str) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
        """One of the two: its process, its port, and the seconds until it answered."""
        port, folder = free_port(), self._folder / name
        home = str(folder)
        own = {"HOME": home, "HF_HOME": home, "LLAMA_STACK_CONFIG_DIR": home, "OGX_CONFIG_DIR": home}
        began = perf_counter()
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [*self._commands[name], str(port)],
                cwd=folder,
                env={**os.environ, **own},
                stdout=log,
                stderr=log,
            )
        try:
            _answers(f"http://127.0.0.1:{port}/v1/health", process)
            yield process, port, perf_counter() - began
        finally:
            began = perf_counter()
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_PATIENCE)
            finally:
                process.kill()
            if name == "theirs":
                self._stops.append(perf_counter() - began)

    def stop_seconds(self) -> float:
        """How long the server on its own takes to stop."""
        return statistics.median(self._stops)


def _answers(url: str, process: subprocess.Popen[bytes]) -> None:
    began = perf_counter()
    while True:
        try:
            with urllib.request.urlopen(url, timeout=_PATIENCE):
                return
        except OSError as error:
            if process.poll() is not None or perf_counter() - began > _PATIENCE:
                raise RuntimeError(f"the server did not start: {url}") from error
            sleep(0.005)


def _starts(servers: _Servers) -> Iterator[dict[str, float]]:
    for turn in range(STARTS + 1):
        took = {}
        for name in ("theirs", "ours"):
            with servers.running(name) as (_, _, seconds):
                took[name] = seconds
        if turn:  # the first ones read everything from the disk, and make their stores
            yield took


def _start_row(runtime: str, starts: list[dict[str, float]]) -> Row:
    best = min(each["ours"] for each in starts) / min(each["theirs"] for each in starts)
    middle = statistics.median(each["ours"] / each["theirs"] for each in starts)
    seconds = {name: statistics.median(each[name] for each in starts) for name in ("ours", "theirs")}
    note = f"{seconds['ours']:.2f} s to {seconds['theirs']:.2f} s"
    return Row("hosting", f"{runtime}: start", "the server on its own", middle, best, "x", START_SHARE, note)


def _changes(servers: _Servers, addresses: tuple[str, str], restart: float) -> Iterator[Row]:
    runtime = servers.runtime
    below = "/v1" if runtime == "ogx" else ""
    swaps, wholes = [], []
    with servers.running("ours") as (_, port, _):
        url = f"http://127.0.0.1:{port}"
        _asked(f"{url}/v1/apply", {"wait": _PATIENCE})
        for number in range(SWAPS):
            config = {FIELDS[runtime]: f"{addresses[number % 2]}{below}"}
            overlay = {"inference": [{"provider_id": "ollama", "config": config}]}
            began = perf_counter()
            _asked(f"{url}/v1/configurations/register", overlay)
            report = _asked(f"{url}/v1/apply", {"wait": _PATIENCE})
            wholes.append(perf_counter() - began)
            swaps.append(report["outcomes"][0]["seconds"])
    swap, whole = statistics.median(swaps), statistics.median(wholes)
    subject, best = f"{runtime}: swap of a provider", min(swaps)
    note = f"{whole * 1e3:.0f} ms with its registration and the apply around it"
    yield Row("hosting", subject, "", swap * 1e3, best * 1e3, "ms", SWAP_MS, note)
    note = f"{restart / swap:.0f} times faster than {restart:.2f} s"
    limit = 100 / TIMES_RESTART
    yield Row("hosting", subject, "a restart", swap / restart * 100, best / restart * 100, "%", limit, note)


def _asked(url: str, body: object) -> dict[str, list[dict[str, float]]]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
        found: dict[str, list[dict[str, float]]] = json.loads(answer.read())
    return found


def _requests(servers: _Servers) -> Iterator[Row]:
    """The server's own routes, asked in turn: wall time of one request after another."""
    chat = {"model": MODELS[servers.runtime], "messages": [{"role": "user", "content": "question #1"}]}
    path = "/v1/chat/completions" if servers.runtime == "ogx" else "/v1/openai/v1/chat/completions"
    requests = {"GET models": get("/v1/models"), "chat completion": post(path, chat)}
    with ExitStack() as both:
        targets = {}
        for name in ("ours", "theirs"):
            process, port, _ = both.enter_context(servers.running(name))
            targets[name] = Target(process, port)
            both.callback(targets[name].close)
        for subject, request in requests.items():
            ratios = [_in_turn(targets, request, turn) for turn in range(ROUNDS + 1)][1:]
            yield Row(
                "hosting",
                f"{servers.runtime}: {subject}",
                "the server on its own",
                statistics.median(ratios),
                min(ratios),
                "x",
                OVERHEAD,
            )


def _in_turn(targets: Mapping[str, Target], request: bytes, turn: int) -> float:
    """The ratio of two medians, measured next to each other; who begins changes."""
    took: dict[str, float] = {}
    for name in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
        targets[name].connect()
        took[name] = statistics.median(_timed(lambda name=name: targets[name].body(request)))
    return took["ours"] / took["theirs"]


def _timed(ask: Callable[[], object]) -> list[float]:
    found = []
    for _ in range(REQUESTS):
        began = perf_counter()
        ask()
        found.append(perf_counter() - began)
    return found
