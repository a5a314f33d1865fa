"""The command in this process, where that is enough."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from bad_files import ENVIRON
from bad_kit import Ran

from stackconf.cli.main import main

collect_ignore = ["conftest.py"]  # not to be read again for doctests: others have its name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, with nothing of this user's settings; the machine is left out of it."""
    for name in [*os.environ]:
        if name.startswith(("STACKCONF_", "BAD_")) or name in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}:
            monkeypatch.delenv(name)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STACKCONF_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("STACKCONF_DISABLED_PLUGINS", "host,nvidia,amd,intel,apple")
    return folder


@pytest.fixture
def cli(here, capsys, monkeypatch):
    """Run `stackconf` in this process."""

    def run(*arguments: str, stdin: str | bytes = "") -> Ran:
        data = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
        capsys.readouterr()
        code = main([*arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run
