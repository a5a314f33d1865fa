"""Upstream's own server on a file, without stackconf, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any
from urllib.error import HTTPError

from hosting_kit import PATIENCE, asked, free_port

PROGRAMS = {
    "llama-stack": "import sys; sys.argv[0] = 'llama'; from llama_stack.cli.llama import main; main()",
    "ogx": "import sys; sys.argv[0] = 'ogx'; from ogx.cli.ogx import main; main()",
}
OPTIONS = {"llama-stack": (), "ogx": ("--insecure",)}


class UpstreamServer:
    """A process of upstream's own command, on the file in a folder that is its alone."""

    def __init__(self, folder: Path, runtime: str, text: str, environ: Mapping[str, str]) -> None:
        folder.mkdir()
        (folder / "run.yaml").write_text(text, encoding="utf-8")
        self.url = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-c", PROGRAMS[runtime], "stack", "run", "run.yaml"]
        home = str(folder / "home")
        own = {"HOME": home, "LLAMA_STACK_CONFIG_DIR": home, "OGX_CONFIG_DIR": home, "HF_HOME": home}
        self._log = folder / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, "--port", self.url.rpartition(":")[2], *OPTIONS[runtime]],
                cwd=folder,
                env={**os.environ, **own, "TMPDIR": str(folder), **environ},
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Until it answers; that it ends instead is an error with all that it said."""
        end = monotonic() + PATIENCE
        while True:
            said = self._log.read_text(errors="replace")
            assert self._process.poll() is None, said
            assert monotonic() < end, said
            try:
                asked(f"{self.url}/v1/health")
            except OSError:
                sleep(0.05)
            else:
                return

    def told(self, path: str) -> Any:
        """What it answers under a path."""
        try:
            return asked(f"{self.url}{path}")
        except HTTPError as error:
            raise AssertionError(f"{path}: {error.code}: {error.read()!r}") from None

    def end(self) -> None:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def upstream_servers(
    folder: Path, runtime: str, texts: Mapping[str, str], environ: Mapping[str, str]
) -> Iterator[dict[str, UpstreamServer]]:
    """A server for each text, all started at once."""
    servers: dict[str, UpstreamServer] = {}
    try:
        for name, text in texts.items():
            servers[name] = UpstreamServer(folder / name, runtime, text, environ)
        for server in servers.values():
            server.wait()
        yield servers
    finally:
        for server in servers.values():
            server.end()
