"""Every fault of a stack file: one line with its place, the same from every command, and no change."""

from __future__ import annotations

import json
import os

import pytest
from bad_files import ENVIRON, FAULTS, STACK, said
from bad_kit import USER_FIELDS, overlay, process, tree

SAID = said()
STORE = ".stackconf/stack.yaml.sqlite3"


def expected(name: str, file: str = "stack.yaml") -> list[str]:
    """What is said of a fault in `file`."""
    return [f"{file}:{line.replace('@FILE@', file)}" for line in SAID[name]]


@pytest.fixture
def faulty(here):
    """Writes the stack file of a fault."""

    def write(name: str, file: str = "stack.yaml") -> None:
        (here / file).write_bytes(FAULTS[name].text)

    return write


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """All faulty files, checked by two runs of the real command: for programs and for people."""
    folder = tmp_path_factory.mktemp("faults")
    names = {name: f"{number}.yaml" for number, name in enumerate(FAULTS)}
    for name, file in names.items():
        (folder / file).write_bytes(FAULTS[name].text)
    before = tree(folder)
    env = {**os.environ, **ENVIRON, "STACKCONF_CONFIG_HOME": str(folder / "settings"), "NO_COLOR": "1"}
    machine = process("check", "--json", *names.values(), cwd=folder, env=env)
    people = process("check", *names.values(), cwd=folder, env=env)
    assert (machine.code, people.code) == (1, 1)
    assert tree(folder) == before
    files = dict(zip(names, machine.data["files"], strict=True))
    return files, people.err.splitlines(), names


def test_every_fault_has_its_line_and_every_line_its_fault():
    assert SAID.keys() == FAULTS.keys()
    many = [name for name, lines in SAID.items() if len(lines) != 1]
    assert many == ["everything at once"]
    assert all(": error: " in line for lines in SAID.values() for line in lines)


def test_the_stack_without_a_fault_has_none(cli, here):
    (here / "stack.yaml").write_text(STACK, encoding="utf-8")
    ran = cli("check")
    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("name", FAULTS)
def test_the_command_says_one_line_about_it(checked, name):
    files, lines, names = checked
    file = names[name]
    shown = [line for line in lines if line.startswith(f"{file}:")]
    assert shown == expected(name, file)
    assert [issue["text"] for issue in files[name]["issues"]] == shown
    assert not files[name]["valid"]


@pytest.mark.parametrize("name", FAULTS)
def test_every_command_says_the_same_and_changes_nothing(cli, faulty, here, name):
    faulty(name)
    before = tree(here)
    for command in (["check"], ["inspect"], ["plan"], ["plan", "--exit-code"], ["apply"]):
        ran = cli(*command)
        places = [line for line in ran.err.splitlines() if line.startswith("stack.yaml:")]
        assert (ran.code, places) == (1, expected(name)), command
    assert tree(here) == before


@pytest.mark.parametrize("name", FAULTS)
def test_every_command_says_the_same_to_programs(cli, faulty, here, name):
    faulty(name)
    for command in ("inspect", "plan", "apply"):
        ran = cli(command, "--json")
        assert ran.code == 1
        assert [issue["text"] for issue in ran.data["issues"]] == expected(name), command
    assert sorted(tree(here)) == ["stack.yaml"]


IN_PROVIDERS = [name for name, fault in FAULTS.items() if fault.provider]
NEVER_A_PROVIDER = ("shape: a config is a list", "type is missing", "type is a number", "type misspelt")
"""What these have is too little to be a provider, so that is what is said."""


def settings_for(name: str) -> dict[str, object]:
    """What a user may set for the provider of a fault, but not the setting that is wrong."""
    text = FAULTS[name].text.decode()
    api, provider_id = FAULTS[name].provider.split("/")
    entry = text.split(f"\n  {api}:\n", 1)[-1].split(f"provider_id: {provider_id}\n", 1)[-1]
    kind = next((kind for kind in USER_FIELDS if f"provider_type: {kind}\n" in entry), "")
    wrong = " ".join(SAID[name])
    return {
        key: value for key, value in USER_FIELDS.get(kind, {"x": 1}).items() if f"config.{key}:" not in wrong
    }


@pytest.mark.parametrize("name", IN_PROVIDERS)
def test_nothing_is_registered_for_a_provider_that_is_wrong(cli, faulty, here, name):
    faulty(name)
    given = json.dumps(overlay(FAULTS[name].provider, settings_for(name)))
    ran = cli("configurations", "register", given, "--json")
    assert ran.code == 1
    assert not [path for path in tree(here) if path not in {"stack.yaml", STORE}]
    says = [issue["text"].split(" ")[0] for issue in ran.data["issues"] if issue["level"] == "error"]
    if name.startswith("unknown ") or name in NEVER_A_PROVIDER:
        assert [where.rsplit(":", 3)[0] for where in says] == ["<default>"]
    else:
        assert says == [line.split(" ")[0] for line in expected(name)]
    listed = cli("configurations", "list", "--json")
    if listed.code == 0:
        assert listed.data == {"revision": 0, "configurations": []}


def test_a_registration_for_another_provider_is_taken_and_told_of_the_fault(cli, faulty):
    faulty("misspelt storage backend")
    ran = cli("configurations", "register", json.dumps(overlay("inference/ollama", {"url": "http://x:1"})))
    assert ran.code == 0
    told = "warning: an apply would refuse the stack for 1 other error; `stackconf check` shows them"
    assert ran.err.splitlines()[0] == told
    assert cli("apply").code == 1
