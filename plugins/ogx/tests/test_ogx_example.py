"""`examples/ogx`, with the real servers: a swap in the middle of a stream."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
from ogx_kit import RUNTIMES, installed

EXAMPLE = Path(__file__).parents[3] / "examples" / "ogx"
PROGRAM = "import sys; sys.argv[0] = 'stackconf'; from stackconf.cli.main import run; run()"
PATIENCE = 90.0
FILES = {"ogx": "config.yaml", "llama-stack": "run.yaml"}
OVERLAYS = {"ogx": "elsewhere.json", "llama-stack": "elsewhere-llama-stack.json"}
REQUIRED = os.environ.get("STACKCONF_OGX_REQUIRED", "")


@pytest.fixture(params=[REQUIRED] if REQUIRED else RUNTIMES)
def runtime(request) -> str:
    """Each that is installed here."""
    why = installed(request.param)
    if why and request.param == REQUIRED:
        pytest.fail(why)
    if why:
        pytest.skip(f"{why}; `tox -e {request.param}` runs this")
    name: str = request.param
    return name


@pytest.fixture
def folder(tmp_path) -> Path:
    """The example, copied."""
    found = tmp_path / "example"
    shutil.copytree(EXAMPLE, found, ignore=shutil.ignore_patterns("data", "__pycache__"))
    return found


def environ(folder: Path, url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("STACKCONF_", "OGX_"))}
    return {**kept, "HOME": str(folder.parent), "OLLAMA_URL": url, "COLUMNS": "200"}


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def backend(folder: Path, name: str) -> Iterator[str]:
    """The example's own stand-in; its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(folder / "backend.py"), str(port), name])
    try:
        end = monotonic() + PATIENCE
        while not listens(port):
            assert process.poll() is None
            assert monotonic() < end
            sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(PATIENCE)


@contextmanager
def served(folder: Path, runtime: str, url: str) -> Iterator[str]:
    """The example's stack file under the real server; its address."""
    log = folder / "serve.log"
    command = [sys.executable, "-c", PROGRAM, "serve", "--runtime", runtime, "-s", FILES[runtime]]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, "--port", "0"], cwd=folder, env=environ(folder, url), stdout=said, stderr=said
        )
    try:
        end = monotonic() + PATIENCE
        while not (found := re.search(r"serving .* at (\S+)", log.read_text(errors="replace"))):
            assert process.poll() is None, log.read_text(errors="replace")
            assert monotonic() < end, log.read_text(errors="replace")
            sleep(0.1)
        yield found[1]
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text(errors="replace")
    finally:
        process.kill()
        process.wait(PATIENCE)


def test_the_example_shows_a_swap_under_a_stream(runtime, folder):
    with ExitStack() as running:
        one = running.enter_context(backend(folder, "first"))
        other = running.enter_context(backend(folder, "second"))
        url = running.enter_context(served(folder, runtime, one + ("/v1" if runtime == "ogx" else "")))
        command = [sys.executable, str(folder / "swap.py"), url, one, other]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [each for each in lines if "stream: " in each] == [
        f"  stream: {number} from first" for number in range(1, 11)
    ]
    assert "new request: 1 from second" in lines
    assert lines.index("new request: 1 from second") < lines.index("  stream: 4 from first")
    assert f"/v1/providers: {other}{'/v1' if runtime == 'ogx' else ''}" in lines
    assert re.search(r"swapped in \d+ ms", done.stdout)
    assert lines[-1] == "the stream is at its end after 10 words"


def test_the_examples_files_have_nothing_to_be_told(runtime, folder):
    overlay = json.loads((folder / OVERLAYS[runtime]).read_text())
    before = environ(folder, "http://localhost:11434")

    def stackconf(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return subprocess.run(command, cwd=folder, env=before, capture_output=True, text=True, check=False)

    done = stackconf("check", "--runtime", runtime, FILES[runtime])
    assert (done.returncode, done.stdout) == (0, f"{FILES[runtime]}: 2 providers, no issues\n"), done.stderr
    done = stackconf(
        *("-s", FILES[runtime], "--runtime", runtime),
        *("configurations", "register", OVERLAYS[runtime], "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == overlay
