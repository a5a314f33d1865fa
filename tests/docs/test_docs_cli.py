from __future__ import annotations

import re

import click
import pytest
from docs_kit import ROOT, page, section

from stackconf.cli.options import Shared
from stackconf.cli.root import root

PAGE = page("cli.md")


def commands(command: click.Command, name: str = "") -> dict[str, click.Command]:
    """Every command that does something, by what is typed after `stackconf`."""
    if not isinstance(command, click.Group):
        return {name: command}
    found: dict[str, click.Command] = {name: command} if name and command.invoke_without_command else {}
    context = click.Context(command)
    for each in command.list_commands(context):
        inner = command.get_command(context, each)
        assert inner is not None
        found |= commands(inner, f"{name} {each}".strip())
    return found


COMMANDS = commands(root)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_a_section_for_every_command(name):
    assert section(PAGE, name).strip()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_section_of_a_command_shows_a_call_of_it(name):
    assert f"stackconf {name}" in PAGE


def test_every_option_of_a_command_stands_in_its_section():
    missing = [
        f"{name} {option}"
        for name, command in COMMANDS.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not isinstance(parameter, Shared)
        for option in parameter.opts
        if option not in {"--help", "-h"}
        if option not in section(PAGE, name) and name != "configurations inspect"
    ]
    assert missing == []


def test_every_shared_option_stands_in_the_table():
    table = section(PAGE, "Conventions")
    options = {option for parameter in root.params for option in parameter.opts}
    assert options
    assert [option for option in options if f"`{option}" not in table] == []


def test_no_section_is_about_a_command_that_does_not_exist():
    titles = re.findall(r"^## ([a-z][a-z -]+)$", PAGE, re.MULTILINE)
    assert set(titles) == set(COMMANDS)


def test_every_variable_of_the_source_stands_in_the_table():
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src" / "stackconf").rglob("*.py"))
    variables = set(re.findall(r"[\"`](STACKCONF_[A-Z_]+)[\"`/=]", source))
    assert variables
    table = section(PAGE, "Environment variables")
    assert [name for name in variables if f"`{name}`" not in table] == []
