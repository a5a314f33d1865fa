"""The command run for real: in this process where that is enough, in its own where it is not."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cli_kit import PLUGIN, PROGRAM, STACK

from stackconf.cli.main import main

collect_ignore = ["conftest.py"]  # not to be read again for doctests: others have its name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own with `stack.yaml` and `plugin.py`, and nothing of this user's settings."""
    for name in [*os.environ]:
        if name.startswith("STACKCONF_") or name in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}:
            monkeypatch.delenv(name)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STACKCONF_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv(
        "STACKCONF_DISABLED_PLUGINS", "host,nvidia,amd,intel,apple"
    )  # the machine is no matter here
    (folder / "stack.yaml").write_text(STACK, encoding="utf-8")
    (folder / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    return folder


class Ran(SimpleNamespace):
    """How a run ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON that it printed."""
        return json.loads(self.out)


@pytest.fixture
def cli(here, capsys, monkeypatch):
    """Run `stackconf` in this process, with the test's plugin unless `plugin=False`."""

    def run(*args: str, plugin: bool = True, stdin: str = "") -> Ran:
        extra = ["--plugin", "plugin.py"] if plugin else []
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        capsys.readouterr()
        code = main([*extra, *args])
        captured = capsys.readouterr()
        return Ran(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def process(here):
    """Run `stackconf` as a process of its own; `path` goes on its PYTHONPATH."""

    def run(*args: str, path: Path | None = None, **env: str) -> Ran:
        environ = {**os.environ, **env}
        if path is not None:
            environ["PYTHONPATH"] = str(path)
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *args], capture_output=True, env=environ, check=False, timeout=60
        )
        return Ran(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())

    return run
