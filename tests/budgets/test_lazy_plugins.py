"""A stack imports the plugins of the types it names, and no others: real distributions on the path."""

import json
import os
import subprocess
import sys

import pytest

PLUGIN = """
from pydantic import BaseModel
from stackconf import ProviderType, hookimpl, user_field

class Config(BaseModel):
    size: int = user_field(1)

provides = (ProviderType("inference", "remote::{name}", Config),)

@hookimpl
def default_config(provider, hardware):
    return {{"size": 2}}
"""

POLICY = """
from stackconf import hookimpl

@hookimpl
def validate_user_config(provider, config):
    return ()
"""

INSPECT = """
import json, sys
from stackconf import Stack
from stackconf.testing import machine

with Stack.open(sys.argv[1], hardware=machine()) as stack:
    shown = stack.configurations.inspect()
    issues = [str(issue) for issue in stack.issues]
print(json.dumps({"shown": shown, "issues": issues, "modules": sorted(sys.modules)}))
"""


def distribution(folder, name, code, entry_points):
    (folder / f"budget_{name}.py").write_text(code, encoding="utf-8")
    info = folder / f"budget_{name}-1.0.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: budget-{name}\nVersion: 1.0\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


@pytest.fixture
def site(tmp_path):
    """Three provider plugins, one of them broken, and a cross-cutting one."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name, code in (
        ("alpha", PLUGIN.format(name="alpha")),
        ("beta", PLUGIN.format(name="beta")),
        ("broken", "raise RuntimeError('broken')"),
    ):
        entry = f"[stackconf.providers]\ninference/remote::{name} = budget_{name}\n"
        distribution(folder, name, code, entry)
    distribution(folder, "policy", POLICY, "[stackconf.plugins]\npolicy = budget_policy\n")
    return folder


def inspected(site, tmp_path, provider_types, **environment):
    providers = [{"provider_id": name.split("::")[1], "provider_type": name} for name in provider_types]
    stack = tmp_path / "stack.yaml"
    stack.write_text(json.dumps({"providers": {"inference": providers}}), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", INSPECT, str(stack)],
        check=True,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")])),
            "STACKCONF_CONFIG_HOME": str(tmp_path / "home"),
            **environment,
        },
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_inspecting_one_provider_imports_no_module_of_other_plugins(site, tmp_path):
    found = inspected(site, tmp_path, ["remote::alpha"])
    assert found["issues"] == []
    assert found["shown"]["providers"]["inference"][0]["config"] == {"size": 2}
    ours = {name for name in found["modules"] if name.startswith("budget_")}
    assert ours == {"budget_alpha", "budget_policy"}
    others = [name for name in found["modules"] if name.split(".")[0].startswith("stackconf_")]
    assert others == []
    assert "stackconf.hardware.nvidia" not in found["modules"]
    assert "pynvml" not in found["modules"]


def test_each_named_type_imports_its_own_plugin(site, tmp_path):
    found = inspected(site, tmp_path, ["remote::alpha", "remote::beta"])
    assert found["issues"] == []
    ours = {name for name in found["modules"] if name.startswith("budget_")}
    assert ours == {"budget_alpha", "budget_beta", "budget_policy"}


def test_a_disabled_plugin_is_never_imported(site, tmp_path):
    found = inspected(
        site, tmp_path, ["remote::alpha"], STACKCONF_DISABLED_PLUGINS="budget-alpha,budget-policy"
    )
    assert len(found["issues"]) == 1
    assert "disabled" in found["issues"][0]
    assert not [name for name in found["modules"] if name.startswith("budget_")]
