"""Plugins that raise, return the wrong thing, hang or cannot be loaded: one line that names them."""

from __future__ import annotations

import os
import sys

import pytest
from bad_files import ENVIRON
from bad_kit import process
from bad_plugins import (
    APPLIES,
    ASYNC_APPLIES,
    BAD_VALUES,
    BROKEN,
    CLASSES,
    DECLARED_WRONGLY,
    DEFAULTS,
    DEFECT,
    FINDINGS,
    REFUSALS,
    STACK,
    config_class,
    hook,
)

from stackconf.store.sqlite import SqliteStore


@pytest.fixture
def run(cli, here, monkeypatch):
    """Run a command with the plugin of this text, in a stack where it has a provider and another
    plugin has one as well.
    """

    def run(plugin: str, *command: str, stack: str = STACK):
        sys.modules.pop("stackconf_plugin_file_bad", None)
        seconds = "0.5" if "sleep(600)" in plugin else "30"
        monkeypatch.setenv("STACKCONF_HOOK_TIMEOUT", seconds)
        monkeypatch.setenv("STACKCONF_APPLY_TIMEOUT", seconds)
        (here / "bad.py").write_text(plugin, encoding="utf-8")
        (here / "stack.yaml").write_text(stack, encoding="utf-8")
        return cli("--plugin", "bad.py", *command)

    return run


def told(run, plugin: str) -> str:
    """The one line that `check`, `plan` and `apply` say about a plugin; nothing is applied."""
    lines = {tuple(run(plugin, command).lines()[-1:]) for command in ("check", "plan", "apply")}
    ran = run(plugin, "check", "--json")
    assert ran.code == 1
    assert lines == {(ran.data["files"][0]["issues"][0]["text"],)}
    assert len(ran.data["files"][0]["issues"]) == 1
    return lines.pop()[0]


@pytest.mark.parametrize(("body", "problem"), DEFAULTS.items())
def test_default_config(run, body, problem):
    line = told(run, hook("default_config", body))
    assert line == f"error: inference/bad: default_config of plugin `bad.py` {problem}{DEFECT}"


@pytest.mark.parametrize(("body", "problem"), BAD_VALUES.items())
def test_default_config_with_a_value_that_the_class_refuses(run, body, problem):
    line = told(run, hook("default_config", body))
    said = f"default_config of plugin `bad.py` gave a bad value: {problem}"
    assert line == f"error: inference/bad: config.threads: {said}{DEFECT}"


@pytest.mark.parametrize(("body", "problem"), FINDINGS.items())
def test_validate_user_config(run, body, problem):
    line = told(run, hook("validate_user_config", body))
    assert line == f"error: inference/bad: validate_user_config of plugin `bad.py` {problem}{DEFECT}"


def test_an_issue_of_several_lines_is_one_line(run):
    line = told(
        run, hook("validate_user_config", r'yield Issue("two\nlines\x1b[2J", path="url", hint="do\nit")')
    )
    assert line == "stack.yaml:5:19: error: inference/bad: config.url: two lines?[2J; do it"


def test_an_issue_that_repeats_a_secret_does_not(run):
    body = 'yield Issue("refused " + config.api_key.get_secret_value(), hint=config.url)'
    line = told(run, hook("validate_user_config", body))
    assert line == "stack.yaml:3:5: error: inference/bad: refused ********; http://u:********@h"


@pytest.mark.parametrize(("body", "problem"), CLASSES.items())
def test_config_class(run, body, problem):
    line = told(run, config_class(body))
    assert line == f"error: inference/bad: config class of plugin `bad.py` {problem}{DEFECT}"


@pytest.mark.parametrize(("body", "line"), REFUSALS.items())
def test_what_a_config_class_refuses(run, body, line):
    assert told(run, config_class(body)) == line


@pytest.mark.parametrize(("text", "problem"), BROKEN.items())
def test_a_plugin_that_cannot_be_loaded(run, text, problem):
    line = told(run, text)
    place = "stack.yaml:4:20: error: inference/bad: no installed plugin provides `inference/remote::bad`"
    assert line == f"{place}; perhaps this one does: plugin `bad.py`: {problem}"
    assert run(text, "check").lines("warning") == [f"warning: plugin `bad.py`: {problem}"]


@pytest.mark.parametrize(("text", "problem"), DECLARED_WRONGLY.items())
def test_a_plugin_that_declares_itself_wrongly(run, text, problem):
    line = told(run, text)
    assert line == f"stack.yaml:4:20: error: inference/bad: plugin `bad.py`: {problem}{DEFECT}"


def test_a_plugin_file_whose_import_hangs(run):
    for command in ("check", "plan", "apply"):
        ran = run("import time; time.sleep(600)\n", command)
        assert ran.code == 1
        assert ran.lines() == ["error: plugin `bad.py`: its import did not come back within 0.5 s"]


def applied(here) -> dict[str, object]:
    """What the store says runs."""
    store = SqliteStore(here / ".stackconf" / "stack.yaml.sqlite3")
    try:
        return dict(store.applied())
    finally:
        store.close()


@pytest.mark.parametrize(
    ("body", "problem", "asynchronous"),
    [(*case, False) for case in APPLIES.items()] + [(*case, True) for case in ASYNC_APPLIES.items()],
)
def test_apply_config(run, here, body, problem, asynchronous):
    ran = run(hook("apply_config", body, asynchronous=asynchronous), "apply", "--json")
    assert ran.code == 1
    outcomes = {outcome["provider"]: outcome for outcome in ran.data["outcomes"]}
    assert outcomes["inference/bad"]["error"].removeprefix("inference/bad: ") == problem
    assert outcomes["scoring/good"]["state"] in {"not_attempted", "rolled_back"}
    assert not [key for key in applied(here) if key == "scoring/good"]


def test_what_was_applied_before_a_failure_is_taken_back(run, here):
    body = """\
if config.threads == 1:
    raise RuntimeError("full")
open("applied", "w", encoding="utf-8").close()
import os
return Applied("x", undo=lambda: os.remove("applied"))"""
    first = (
        "  - {provider_id: first, provider_type: 'remote::bad', config: {threads: 2}}\n  - provider_id: bad"
    )
    stack = STACK.replace("  - provider_id: bad", first)
    ran = run(hook("apply_config", body), "apply", "--json", stack=stack)
    states = {outcome["provider"]: outcome["state"] for outcome in ran.data["outcomes"]}
    assert (states["inference/first"], states["inference/bad"]) == ("rolled_back", "failed")
    assert not (here / "applied").exists()
    assert not applied(here)


PRINTS = """\
print("noise of the plugin")
return Applied("x", undo=lambda: None, check=lambda: print("noise of the check"))"""


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_plugin_prints_is_no_data(run, asynchronous):
    ran = run(hook("apply_config", PRINTS, asynchronous=asynchronous), "apply", "--json")
    assert ran.data["state"] == "applied"
    assert {"noise of the plugin", "noise of the check"} <= set(ran.err.splitlines())


TINY = """
from pydantic import BaseModel
from stackconf import ProviderType, hookimpl
class Config(BaseModel):
    size: int = 1
"""


def distribution(site, name: str, module: str, text: str | None, *entries: str, group: str = "providers"):
    """Lay a distribution out as pip does, at version 1.2."""
    info = site / f"{module}-1.2.dist-info"
    info.mkdir(parents=True)
    if text is not None:
        (site / f"{module}.py").write_text(text, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
    listed = "".join(f"{entry}\n" for entry in entries)
    (info / "entry_points.txt").write_text(f"[stackconf.{group}]\n{listed}", encoding="utf-8")


def serving(name: str, extra: str = "") -> str:
    return f'{TINY}\nprovides = (ProviderType("inference", "remote::{name}", Config),)\n{extra}'


SLEEPS = "@hookimpl\ndef default_config(provider, hardware):\n    import time; time.sleep(600)\n"
RAISES = "@hookimpl\ndef default_config(provider, hardware):\n    raise ValueError('no')\n"
INSTALLED = {
    "good": (serving("good"), None),
    "gone": (None, "plugin {}: cannot be imported: ModuleNotFoundError: No module named 'acme_gone'"),
    "syntax": ("def x(:\n", "plugin {}: cannot be imported: SyntaxError: acme_syntax.py:1: invalid syntax"),
    "exits": ("import sys; sys.exit(1)\n", "plugin {}: cannot be imported: SystemExit: 1"),
    "sleeps": ("import time; time.sleep(600)\n", "plugin {}: its import did not come back within 1 s"),
    "raises": (serving("raises", RAISES), "default_config of plugin {} raised ValueError: no"),
    "hangs": (serving("hangs", SLEEPS), "default_config of plugin {} did not come back within 1 s"),
    "other": (
        serving("another"),
        "plugin {}: advertises `inference/remote::other`, but its `provides` does not declare it",
    ),
}


def test_installed_distributions_are_named_with_their_version_and_the_others_go_on(here):
    """One stack with a provider of each, in a process of its own."""
    site = here / "site"
    text = "providers:\n  inference:\n"
    for name, (module, _) in INSTALLED.items():
        distribution(site, f"acme-{name}", f"acme_{name}", module, f"inference/remote::{name} = acme_{name}")
        text += f"  - {{provider_id: {name}, provider_type: 'remote::{name}'}}\n"
    text += "  - {provider_id: again, provider_type: 'remote::hangs'}\n"
    (here / "stack.yaml").write_text(text, encoding="utf-8")
    env = {**os.environ, **ENVIRON, "PYTHONPATH": str(site), "STACKCONF_HOOK_TIMEOUT": "1"}
    ran = process("plan", "--json", cwd=here, env=env)
    assert ran.code == 1
    said = {issue["provider"]: issue["message"] for issue in ran.data["issues"]}
    for name, (_, problem) in INSTALLED.items():
        modules = {"raises", "hangs", "other"}
        plugin = f"acme_{name}" if name in modules else f"inference/remote::{name}"
        expected = problem and problem.format(f"`{plugin}` (acme-{name} 1.2)")
        assert said.get(f"inference/{name}") == expected
    assert (
        said["inference/again"]
        == "plugin `acme_hangs` was not asked: it did not come back for inference/hangs"
    )
    assert "inference/good" in [change["provider"] for change in ran.data["changes"]]
    assert {issue["level"] for issue in ran.data["issues"]} == {"error"}


DETECTORS = {
    "raises": ('raise OSError("no driver")', "raised OSError: no driver"),
    "wrong": ("return [1]", "gave a int"),
    "hangs": ("import time; time.sleep(600)", "did not answer within 1 s"),
    "dies": ("import os; os._exit(3)", "ended before it was done (exit code 3)"),
}


def test_detectors_that_go_wrong_are_problems_and_the_machine_is_still_known(here):
    site = here / "site"
    for name, (body, _) in DETECTORS.items():
        text = f"from stackconf import hookimpl\n@hookimpl\ndef discover_hardware():\n    {body}\n"
        distribution(site, f"acme-{name}", f"acme_{name}", text, f"{name} = acme_{name}", group="plugins")
    env = {**os.environ, "PYTHONPATH": str(site), "STACKCONF_PROBE_TIMEOUT": "1"}
    del env["STACKCONF_DISABLED_PLUGINS"]
    ran = process("hardware", "--json", cwd=here, env=env)
    assert ran.code == 0
    assert ran.data["cpu"]["logical_cores"] >= 1
    reasons = [problem["reason"] for problem in ran.data["problems"]]
    for name, (_, said) in DETECTORS.items():
        assert [reason for reason in reasons if f"(acme-{name} 1.2)" in reason and said in reason], reasons
