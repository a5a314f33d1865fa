"""What looking at the machine costs, in processes and modules: counts, which are the same everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stackconf.hardware.applying import NVIDIA_MARKS
from stackconf.hardware.files import Files
from stackconf.hardware.pci import AMD, INTEL, NVIDIA, Glance

COMMAND = """
import json, os, subprocess, sys
from pathlib import Path
started, popen = [], subprocess.Popen.__init__
def counted(self, arguments, *rest, **options):
    started.append(json.loads(arguments[-1])["name"])
    popen(self, arguments, *rest, **options)
subprocess.Popen.__init__ = counted
sys.argv = ["stackconf", *sys.argv[2:]]
from stackconf.cli.main import run
try:
    run()
except SystemExit as end:
    assert not end.code, end.code
finally:
    sys.stdout.flush()
    told = {"started": sorted(started), "modules": sorted(sys.modules)}
    Path(os.environ["BUDGET_FILE"]).write_text(json.dumps(told))
"""

CHILD = """
import json, sys
from stackconf.hardware.detecting import _entries
said = list(_entries(sys.argv[1], sys.argv[2]))
print(json.dumps([said, sorted(sys.modules)]))
"""

MOST_MODULES = 150
"""Of a detector's process."""

MOST_OF_THE_COMMAND = 215
"""Of `stackconf hardware` itself, where no detector needs a process."""


def looked(tmp_path, *arguments):
    """Names of the detectors that got a process, and the modules of the command itself."""
    file = tmp_path / "told.json"
    environ = {**os.environ, "BUDGET_FILE": str(file), "STACKCONF_DISABLED_PLUGINS": ""}
    environ.pop("LD_LIBRARY_PATH", None)
    run = [sys.executable, "-c", COMMAND, "-", *arguments]
    subprocess.run(run, check=True, capture_output=True, env=environ)
    told = json.loads(file.read_text())
    return told["started"], set(told["modules"])


@pytest.fixture
def without_cards():
    glance = Glance(Files())
    marks = any(Path(each).exists() for each in (*NVIDIA_MARKS, "/sys/class/kfd/kfd"))
    if sys.platform != "linux" or marks or any(map(glance.has, (NVIDIA, AMD, INTEL))):
        pytest.skip("this machine has cards")


def test_a_machine_without_cards_costs_no_process(without_cards, tmp_path):
    started, modules = looked(tmp_path, "hardware")
    assert started == []
    assert modules.isdisjoint({"pynvml", "ctypes", "amdsmi", "psutil", "pydantic", "yaml", "sqlite3"})
    assert modules.isdisjoint({"stackconf.hardware.catalog", "stackconf.hardware.simulation"})
    assert modules.isdisjoint({"urllib.request", "xml.sax", "http.client", "asyncio", "html", "fractions"})


BARE = """
import sys
sys.argv = ["stackconf", *sys.argv[1:]]
from stackconf.cli.main import run
try:
    run()
finally:
    sys.stdout.flush()
    sys.stderr.write(f"\\n{' '.join(sorted(sys.modules))}")
"""


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command_itself_loads_little(without_cards, options):
    run = [sys.executable, "-c", BARE, "hardware", *options]
    environ = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    done = subprocess.run(run, check=True, capture_output=True, text=True, env=environ)
    modules = set(done.stderr.splitlines()[-1].split())
    assert {"click", "stackconf.hardware.host"} <= modules
    assert len(modules) <= MOST_OF_THE_COMMAND
    assert modules.isdisjoint({"importlib.metadata", "email", "zipfile", "csv", "socket", "tempfile"})
    assert modules.isdisjoint({"subprocess", "stackconf.manager", "stackconf.stack", "rich"})


def test_another_machine_costs_none(tmp_path):
    assert looked(tmp_path, "hardware", "--hardware", "l40s:2,cpu=8")[0] == []


@pytest.mark.parametrize("name", ["host", "nvidia", "amd", "intel", "apple"])
def test_a_detector_loads_little(name):
    run = [sys.executable, "-c", CHILD, name, f"stackconf.hardware.{name}"]
    environ = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    said, modules = json.loads(subprocess.run(run, check=True, capture_output=True, env=environ).stdout)
    if any(one.get("type") == "Accelerator" for one in said):
        pytest.skip("this machine has such a card")
    assert len(modules) <= MOST_MODULES
    heavy = {"pynvml", "amdsmi", "click", "pydantic", "psutil", "subprocess", "importlib.metadata"}
    assert heavy.isdisjoint(modules)
