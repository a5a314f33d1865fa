"""A provider that stackconf has never heard of: a distribution, built, installed and used for real.

It takes a fresh virtual environment, installed from the package index, so it is slow; everything
else about plugins is tested in `tests/core`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from stackconf.registry import known

HERE = Path(__file__).parent
CHECKOUT = HERE.parent.parent

STACK = """\
version: 2
providers:
  inference:
  - provider_id: acme
    provider_type: remote::acme
    config:
      settings_file: {folder}/acme.json
      api_key: ${{env.ACME_KEY:=}}
"""


class Environment:
    """A virtual environment and the commands in it."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        venv.create(folder, with_pip=True)

    def run(self, *command: object, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = map(str, command)
        clean = {
            key: value for key, value in os.environ.items() if not key.startswith(("STACKCONF", "PYTHON"))
        }
        done = subprocess.run(
            [self.bin / program, *arguments],
            capture_output=True,
            text=True,
            env={**clean, **environ},
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def pip(self, *arguments: object) -> None:
        self.run("python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments)

    def python(self, code: str, *arguments: object, **environ: str) -> object:
        said = self.run("python", "-W", "error", "-c", code, *arguments, **environ).stdout
        return json.loads(said)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """An environment with stackconf from this checkout and Acme's distribution, both installed."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    acme = shutil.copytree(HERE / "acme", tmp_path_factory.mktemp("source") / "acme")  # built in place
    environment.pip("install", CHECKOUT, acme)
    return environment


@pytest.fixture
def stack(tmp_path):
    file = tmp_path / "stack.yaml"
    file.write_text(STACK.format(folder=tmp_path))
    return file


def test_stackconf_does_not_know_it():
    assert "inference/remote::acme" not in known.DISTRIBUTIONS
    assert "acme_ai" not in sys.modules


def test_the_sdk_discovers_resolves_explains_plans_and_applies_it(installed, stack):
    code = """
import json, sys
from stackconf import Stack
from stackconf.testing import machine
stack = Stack.open(sys.argv[1], hardware=machine(cores=6))
assert not any(name.startswith("acme_ai") for name in sys.modules)
inspected = stack.configurations.inspect()
(workers,) = stack.explain("acme", "workers")
registered = stack.configurations.register(
    {"inference": [{"provider_id": "acme", "config": {"url": "http://localhost:7001", "settings_file": "x"}}]}
)
report = stack.apply()
print(json.dumps({
    "issues": list(map(str, stack.issues)), "inspected": inspected,
    "workers": [workers.value, workers.layer, workers.source, workers.reason, workers.user_field],
    "dropped": [issue.path for issue in registered.dropped],
    "outcomes": [[each.provider, each.state, each.detail] for each in report.outcomes],
    "again": stack.apply().state,
}))
"""
    said = installed.python(code, stack, ACME_KEY="canary-key")
    assert said["inspected"] == {
        "providers": {
            "inference": [
                {
                    "config": {"url": "http://localhost:7000", "workers": 6, "batching": {"size": 8}},
                    "provider_id": "acme",
                    "provider_type": "remote::acme",
                }
            ]
        }
    }
    assert said["workers"] == [
        6,
        "hardware",
        "plugin acme-ai 3.1",
        "one worker for each of 6 usable physical cores",
        True,
    ]
    assert said["dropped"] == ["config.settings_file"]
    file = stack.parent / "acme.json"
    assert said["outcomes"] == [["inference/acme", "applied", f"wrote {file}"]]
    assert said["again"] == "nothing"
    assert json.loads(file.read_text()) == {
        "batching": {"size": 8, "window_ms": 5},
        "url": "http://localhost:7001",
        "workers": 6,
    }
    assert "canary-key" not in json.dumps(said)


def test_the_command_discovers_it_and_takes_it_through_its_whole_life(installed, stack):
    def stackconf(*arguments, check=True, **environ):
        return installed.run("stackconf", "-s", stack, *arguments, check=check, **environ)

    types = installed.run("stackconf", "providers", "list", "--types", "--json").stdout
    assert "inference/remote::acme" in types
    assert "acme-ai" in installed.run("stackconf", "plugins", "list").stdout
    explained = stackconf("explain", "acme", "workers", ACME_MAX_WORKERS="1").stdout
    assert "hardware" in explained
    assert "one worker for each of" in explained
    plan = stackconf("plan", "--exit-code", check=False)
    assert plan.returncode == 3, plan.stdout + plan.stderr
    assert "inference/acme" in plan.stdout
    stackconf("apply")
    file = stack.parent / "acme.json"
    assert json.loads(file.read_text())["batching"]["size"] == 8
    assert stackconf("plan", "--exit-code").returncode == 0
    listed = stackconf("configurations", "list").stdout
    assert "acme/busy" in listed
    assert "acme/calm" in listed
    stackconf("configurations", "assign", "acme/busy")
    stackconf("apply")
    assert json.loads(file.read_text())["batching"]["size"] == 64
    stackconf("configurations", "unassign", "acme/busy")
    wrong = stack.parent / "wrong.yaml"
    wrong.write_text("inference:\n- provider_id: acme\n  config:\n    batching: {size: 9999}\n")
    refused = stackconf("configurations", "register", wrong, check=False)
    assert refused.returncode == 1
    assert "batching.size" in refused.stderr
    stack.write_text("version: 2\nproviders: {}\n")
    stackconf("apply")
    assert not file.exists()


def test_its_policy_is_cross_cutting(installed, stack):
    code = """
import json, sys
from stackconf import Stack
from stackconf.testing import machine
stack = Stack.open(sys.argv[1], hardware=machine(cores=6))
(workers,) = stack.explain("inference/acme", "workers")
print(json.dumps([workers.value, workers.reason]))
"""
    value, reason = installed.python(code, stack, ACME_MAX_WORKERS="2")
    assert value == 2
    assert "this site allows 2" in reason
    stack.write_text(stack.read_text() + "      url: http://0.0.0.0:1\n")
    assert (
        "listens to everybody" in installed.run("stackconf", "-s", stack, "check", stack, check=False).stderr
    )


def test_disabled_it_is_never_imported(installed, stack, tmp_path):
    code = """
import json, sys
from stackconf import Stack
from stackconf.testing import machine
stack = Stack.open(sys.argv[1], hardware=machine())
print(json.dumps([list(map(str, stack.issues)), "acme_ai" in sys.modules]))
"""
    issues, imported = installed.python(code, stack, STACKCONF_DISABLED_PLUGINS="acme-ai")
    (issue,) = issues
    assert "its plugin `inference/remote::acme` of acme-ai 3.1 is disabled" in issue
    assert "stackconf plugins enable acme-ai" in issue
    assert imported is False


@pytest.mark.exhaustive
def test_a_broken_neighbour_harms_nobody(installed, stack, tmp_path):
    broken = tmp_path / "broken"
    (broken / "src").mkdir(parents=True)
    (broken / "src" / "acme_broken.py").write_text("raise RuntimeError('broken at import')\n")
    (broken / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=69"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "acme-broken"\nversion = "0.1"\n'
        '[project.entry-points."stackconf.plugins"]\nbroken = "acme_broken"\n'
        '[tool.setuptools]\npackage-dir = {"" = "src"}\npy-modules = ["acme_broken"]\n'
    )
    installed.pip("install", "--no-deps", broken)
    try:
        assert installed.run("stackconf", "--version").stderr == ""
        applied = installed.run("stackconf", "-s", stack, "apply")
        assert (stack.parent / "acme.json").exists()
        assert "acme-broken 0.1" in applied.stderr
        assert "broken at import" in applied.stderr
    finally:
        installed.pip("uninstall", "--yes", "acme-broken")


def test_uninstalled_there_is_one_clear_issue(installed, stack):
    """Runs last: it takes the distribution away."""
    installed.run("stackconf", "-s", stack, "apply")
    installed.pip("uninstall", "--yes", "acme-ai")
    done = installed.run("stackconf", "-s", stack, "check", stack, check=False)
    assert done.returncode == 1
    found = [line for line in done.stderr.splitlines() if "error" in line and "acme" in line]
    assert len(found) == 1, done.stderr
    assert f"{stack}:5:" in found[0] or "stack.yaml:5:" in found[0]
    assert "no installed plugin provides `inference/remote::acme`" in found[0]
    assert "install a distribution with the `stackconf.providers` entry point" in found[0]
    refused = installed.run("stackconf", "-s", stack, "apply", check=False)
    assert refused.returncode == 1
    assert (stack.parent / "acme.json").exists()
