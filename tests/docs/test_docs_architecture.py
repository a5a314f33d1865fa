from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser

import pytest
from docs_kit import DOCS, ROOT, blocks, page, section

SOURCE = ROOT / "src" / "stackconf"
HOUSE = section(page("architecture.md"), "The house")


def test_the_layers_in_the_page_are_those_of_the_contract():
    contract = ConfigParser()
    contract.read(ROOT / ".importlinter", encoding="utf-8")
    layers = contract["importlinter:contract:layers"]["layers"].split("\n")
    assert blocks(HOUSE)[0].text.splitlines() == [layer for layer in layers if layer]


@pytest.mark.parametrize(
    "name",
    sorted(
        f"{each.name}/" if each.is_dir() else each.name
        for each in SOURCE.iterdir()
        if not each.name.startswith("_") and (each.suffix == ".py" or (each / "__init__.py").is_file())
    ),
)
def test_the_page_names_every_part_of_the_house(name):
    assert f"`{name}`" in HOUSE


def test_the_map_leads_to_every_page():
    linked = set(re.findall(r"\]\((\w[\w-]*\.md)", page("README.md")))
    assert linked == {file.name for file in DOCS.glob("*.md")} - {"README.md"}


def test_the_changelog_knows_every_plugin():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    projects = [
        tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"]
        for file in ROOT.glob("plugins/*/pyproject.toml")
    ]
    assert projects
    assert [name for name in projects if f"`{name}`" not in changelog] == []


def test_contributing_installs_every_plugin_as_tox_does():
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {f"plugins/{file.parent.name}" for file in ROOT.glob("plugins/*/pyproject.toml")}
    assert set(re.findall(r"-e (plugins/[\w-]+)", told)) == folders
    assert set(re.findall(r"-e (plugins/[\w-]+)", (ROOT / "tox.ini").read_text(encoding="utf-8"))) == folders
