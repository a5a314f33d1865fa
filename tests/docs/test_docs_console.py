"""The console blocks of these pages are run, in order, in a folder with the files that the page shows.

`...` in a block stands for anything. The machine is a made-up one with 8 cores and 32 GiB.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
from doctest import ELLIPSIS, REPORT_UDIFF, Example, OutputChecker
from pathlib import Path

import pytest
from docs_kit import EXAMPLES, ROOT, blocks, page

PAGES = ["cli.md", "plan-and-apply.md", "provider-authors.md"]
NOT_RUN = ("pip ", "pytest", "python ", "cd ", "git ")
MARK = "---- end of command ----"

pytestmark = pytest.mark.exhaustive

needs_plugins = pytest.mark.skipif(
    importlib.util.find_spec("stackconf_ollama") is None, reason="the pages use the project's own plugins"
)


def made_up_machine(root: Path) -> Path:
    spec = importlib.util.spec_from_file_location(
        "machines", ROOT / "tests" / "hardware" / "machines" / "__init__.py"
    )
    assert spec is not None
    assert spec.loader is not None
    machines = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(machines)
    root.mkdir()
    for path, text in (machines.linux(memory_kib=32 * 1024**2) | machines.x86(cores=8)).items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def environment(tmp_path):
    with socket.socket() as listening:
        if listening.connect_ex(("127.0.0.1", 11434)) == 0:
            pytest.skip("a server listens where the pages say that none does")
    variables = {
        "CUDA_VISIBLE_DEVICES": "",
        "HOME": str(tmp_path / "home"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "STACKCONF_ACTOR": "ada",
        "STACKCONF_CONFIG_HOME": str(tmp_path / "home" / "stackconf"),
        "STACKCONF_HARDWARE_ROOT": str(made_up_machine(tmp_path / "machine")),
    }
    if "PYTHONPATH" in os.environ:
        variables["PYTHONPATH"] = os.environ["PYTHONPATH"]
    return variables


def commands(text: str) -> list[tuple[str, str]]:
    """Each command of a console block with its output. A line that ends with a backslash goes on."""
    found: list[list[str]] = []
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append([line[2:].rstrip("\n"), ""])
        elif found and found[-1][0].endswith("\\"):
            found[-1][0] += "\n" + line.rstrip("\n")
        else:
            found[-1][1] += line
    return [(command, output) for command, output in found]


def run(all_commands, folder, environment):
    """The output of each, standard error included, in one shell, so that `$?` is the last one's."""
    script = "".join(f"{command}\nrc=$?; echo '{MARK}'; (exit $rc)\n" for command in all_commands)
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    return done.stdout.split(f"{MARK}\n")[:-1]


def collapsed(text: str) -> str:
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).rstrip("\n") + "\n"


@needs_plugins
@pytest.mark.parametrize("name", PAGES)
def test_the_console_blocks_of_a_page_show_what_really_happens(name, tmp_path, environment):
    folder = tmp_path / "site"
    folder.mkdir()
    if name == "provider-authors.md":
        (folder / "stackconf_acme.py").write_bytes((EXAMPLES / "provider" / "stackconf_acme.py").read_bytes())
    expected = []
    for block in blocks(page(name)):
        if block.file and block.language in {"yaml", "json"}:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        if block.language == "console" and "$ stackconf" in block.text:
            shown = commands(block.text)
            if not any(command.startswith(NOT_RUN) for command, _ in shown):
                expected += shown
    assert expected
    outputs = run([command for command, _ in expected], folder, environment)
    assert len(outputs) == len(expected)
    checker = OutputChecker()
    wrong = []
    for (command, wanted), got in zip(expected, outputs, strict=True):
        if not wanted:
            continue
        example = Example(f"{command}\n", collapsed(wanted))
        if not checker.check_output(example.want, collapsed(got), ELLIPSIS):
            difference = checker.output_difference(example, collapsed(got), ELLIPSIS | REPORT_UDIFF)
            wrong.append(f"$ {command}\n{difference}")
    assert not wrong, "\n".join(wrong)
