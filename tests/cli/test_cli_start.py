"""What a start costs, and that it works whatever is installed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = {
    "asyncio",
    "attrs",
    "difflib",
    "importlib.metadata",
    "json",
    "pluggy",
    "psutil",
    "pydantic",
    "pynvml",
    "rich",
    "sqlite3",
    "subprocess",
    "yaml",
}

PROBE = """
import sys
before = set(sys.modules)
from stackconf.cli.main import main
main(sys.argv[1:])
print(*sorted(set(sys.modules) - before), sep="\\n", file=sys.stderr)
"""


def modules_after(*args: str) -> set[str]:
    """What a run imports beyond what Python itself brings."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", _with_path(PROBE), *args], capture_output=True, check=True
    )
    return set(done.stderr.decode().split())


def _with_path(code: str) -> str:
    return f"import sys; sys.path[:] = {sys.path!r}\n{code}"


def test_version_imports_not_even_click() -> None:
    imported = modules_after("--version")
    assert "click" not in imported
    assert {name for name in imported if name.startswith("stackconf")} == {
        "stackconf",
        "stackconf._version",
        "stackconf.cli",
        "stackconf.cli.main",
    }


def test_help_imports_click_and_nothing_heavy() -> None:
    imported = modules_after("--help")
    assert "click" in imported
    assert not imported & HEAVY
    assert len(imported) <= 120
    assert {name for name in imported if name.startswith("stackconf.")} == {
        "stackconf._version",
        "stackconf.cli",
        "stackconf.cli.main",
        "stackconf.cli.options",
        "stackconf.cli.root",
    }


@pytest.mark.parametrize(
    "command",
    [
        "hardware",
        "providers list",
        "providers show",
        "plugins list",
        "plugins disable",
        "check",
        "inspect",
        "explain",
        "configurations register",
        "configurations get",
        "plan",
        "apply",
        "completion",
    ],
)
def test_the_help_of_a_command_imports_no_plugin_machinery(command: str) -> None:
    imported = modules_after(*command.split(), "--help")
    assert not imported & (HEAVY - {"json"})
    assert "stackconf.stack" not in imported
    assert "stackconf.registry" not in imported


def test_plugins_list_imports_no_pydantic_and_no_yaml() -> None:
    imported = modules_after("plugins", "list")
    assert not imported & {"pydantic", "yaml", "psutil", "asyncio", "stackconf.registry.registry"}


def distribution(folder: Path, name: str, code: str) -> None:
    """A distribution as an installer leaves it: a module, and metadata with entry points."""
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    info = folder / f"{module}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        f"[stackconf.plugins]\n{module} = {module}\n\n"
        f"[stackconf.providers]\ninference/remote::acme = {module}\n",
        encoding="utf-8",
    )


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    folder = tmp_path / "broken"
    folder.mkdir()
    distribution(folder, "acme-broken", "raise RuntimeError('boom')")
    return folder


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    folder = tmp_path / "slow"
    folder.mkdir()
    distribution(folder, "acme-slow", "import time; time.sleep(1)")
    return folder


@pytest.mark.parametrize("command", ["--version", "--help", "plugins list", "providers list --types"])
def test_a_broken_plugin_breaks_nothing_that_needs_none(process, broken, command) -> None:
    ran = process(*command.split(), path=broken)
    assert (ran.code, ran.err) == (0, "")
    assert "boom" not in ran.out


def test_a_broken_plugin_is_listed_and_can_be_disabled(process, broken, here) -> None:
    assert "acme-broken 1.2" in process("plugins", "list", path=broken).out
    listed = process("inspect", path=broken)
    assert listed.code == 1
    assert "acme-broken 1.2" in listed.err
    assert "RuntimeError: boom" in listed.err
    assert "Traceback" not in listed.err
    assert process("plugins", "disable", "acme-broken", path=broken).code == 0
    after = process("inspect", path=broken)
    assert "boom" not in after.err
    assert "stackconf plugins enable acme-broken" in after.err


@pytest.mark.parametrize("command", ["--version", "--help", "plugins list", "plugins disable acme-slow"])
def test_a_slow_plugin_slows_nothing_that_needs_none(process, slow, command) -> None:
    started = time.monotonic()
    ran = process(*command.split(), "--json" if "plugins" in command else "--help", path=slow)
    ran_without = time.monotonic() - started
    assert ran.code == 0
    process("inspect", path=slow)
    assert ran_without < 1.0 or ran_without < (time.monotonic() - started) / 2


def test_a_disabled_plugin_is_never_imported(process, tmp_path) -> None:
    folder = tmp_path / "tattle"
    folder.mkdir()
    mark = tmp_path / "imported"
    distribution(folder, "acme-tattle", f"open({str(mark)!r}, 'w', encoding='utf-8').close()")
    process("plugins", "disable", "acme-tattle", path=folder)
    process("inspect", path=folder)
    assert not mark.exists()
    process("plugins", "enable", "acme-tattle", path=folder)
    process("inspect", path=folder)
    assert mark.exists()


def test_metadata_that_cannot_be_read_hides_no_other_plugin(process, broken) -> None:
    info = broken / "acme_garbled-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: acme-garbled\nVersion: 1.0\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text("no section\n[stackconf.plugins]\n= nothing\n", encoding="utf-8")
    ran = process("plugins", "list", path=broken)
    assert ran.code == 0
    assert "acme-broken" in ran.out
