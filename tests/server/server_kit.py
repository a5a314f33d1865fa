"""A real `stackconf serve` in a process of its own, and a plugin whose behaviour a test chooses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any

import httpx

PROGRAM = "import sys; sys.argv[0] = 'stackconf'; from stackconf.cli.main import run; run()"
PATIENCE = 60.0

PLUGIN = """
import os, time
from pathlib import Path
from pydantic import BaseModel, SecretStr
from stackconf import Applied, ProviderType, because, hookimpl, user_field


class Config(BaseModel):
    url: str = user_field("http://class", update="reload", description="Where the server is")
    threads: int = user_field(1, update="in_place", ge=1, le=64)
    token: SecretStr | None = user_field(None)
    mode: str = "plain"


class Memory(BaseModel):
    size: int = user_field(1)


provides = (
    ProviderType("inference", "remote::acme", Config, description="A server of the Acme kind"),
    ProviderType("vector_io", "inline::acme", Memory, api_dependencies=("inference",), in_process=True),
)


@hookimpl
def default_config(provider, hardware):
    return {"threads": because(4, "four of four cores")} if provider.api == "inference" else None


@hookimpl
def apply_config(provider, config, previous):
    act = "join" if previous is None else "leave" if config is None else "change"
    with open("acts", "a", encoding="utf-8") as acts:
        acts.write(f"{os.getpid()} {provider.key} {act}\\n")
    if config is None:
        return Applied("gone", undo=lambda: None)
    url = getattr(config, "url", "")
    if "down" in url and not Path("up").exists():
        return Applied(pending="cannot reach it")
    if "slow" in url:
        Path("slow-began").touch()
        until = time.monotonic() + 30
        while not Path("go-on").exists() and time.monotonic() < until:
            time.sleep(0.02)
    if "fail" in url:
        raise ValueError("refused")
    return Applied("listening", undo=lambda: None)
"""

STACK = """\
version: 2
providers:
  inference:
  - provider_id: one
    provider_type: remote::acme
    config:
      url: http://one
      token: ${env.ACME_TOKEN:=s3cret}
  vector_io:
  - provider_id: memory
    provider_type: inline::acme
    config: {}
"""


class Server:
    """A process that runs `stackconf serve`, and what it says."""

    def __init__(self, folder: Path, options: Sequence[str], environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.said: list[str] = []
        command = [sys.executable, "-c", PROGRAM, "serve", "-s", "stack.yaml", "--plugin", "plugin.py"]
        self.process = subprocess.Popen(
            [*command, "--port", "0", *options],
            cwd=folder,
            env={**clean_environ(folder), **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        """Where it answers, once it says so."""
        return self.until(r"serving .* at (https?://\S+)")[1]

    @property
    def text(self) -> str:
        """All that it said so far."""
        return "".join(self.said)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until it says something."""
        end = monotonic() + PATIENCE
        while monotonic() < end:
            ended = self.process.poll() is not None
            if ended:
                self._reader.join(PATIENCE)
            found = re.search(pattern, self.text)
            if found:
                return found
            assert not ended, f"it ended with {self.process.returncode}:\n{self.text}"
            sleep(0.02)
        raise AssertionError(f"it never said {pattern!r}:\n{self.text}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        if self.process.poll() is None:
            self.send(number)
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def http(self, **options: Any) -> httpx.Client:
        """A plain HTTP client for it."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE, **options)

    def acts(self) -> list[str]:
        """What its plugin was told, without the process: `inference/one join`."""
        file = self.folder / "acts"
        return [line.partition(" ")[2] for line in file.read_text().splitlines()] if file.exists() else []

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(self.process.stderr)


def clean_environ(folder: Path) -> dict[str, str]:
    """The environment without this user's settings, and with no detector of the machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STACKCONF_")}
    return {
        **kept,
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "xdg"),
        "STACKCONF_CONFIG_HOME": str(folder / "settings"),
        "STACKCONF_DISABLED_PLUGINS": "host,nvidia,amd,intel,apple",
        "STACKCONF_ACTOR": "tester",
    }


@contextmanager
def serving(
    folder: Path, *options: str, stack: str = STACK, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """A server on a stack in `folder`, which ends with the block."""
    if not (folder / "stack.yaml").exists():
        (folder / "stack.yaml").write_text(stack, encoding="utf-8")
    (folder / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    server = Server(folder, options, environ or {})
    try:
        yield server
    finally:
        server.process.kill() if server.process.poll() is None else None
        server.process.wait(PATIENCE)
        server._reader.join(PATIENCE)
        server.process.stderr.close()


def wait_for(file: Path) -> None:
    """Wait until a file is there."""
    end = monotonic() + PATIENCE
    while not file.exists():
        assert monotonic() < end, f"{file.name} never came"
        sleep(0.02)
