from __future__ import annotations

import ast
import re

import pytest
from docs_kit import ROOT, blocks, page, section
from issue_examples import CASES, issues_of, line_of, provider
from pydantic import BaseModel, SecretStr

from stackconf import ProviderType, Stack
from stackconf.registry.registry import Registry
from stackconf.stackfile import load, model
from stackconf.testing import machine

PAGE = page("stack-files.md")
NO_CODES = {
    "digest-key",
    "disabled-plugins",
    "lost-documents",
    "missing-package",  # made by stackconf-ogx, and told on its page
    "stackconf-apply",
    "stackconf-events",
    "stackconf-hooks",
    "stackconf-loop",
    "store-id",
}
KEBAB = re.compile(r"[a-z]+(-[a-z]+)+")
NOT_ISSUES = ("cli", "client", "hardware", "server", "shapes", "testing")
"""Folders whose words with a dash are no issue codes."""


def codes_in_source() -> set[str]:
    """Every text constant of the source that has the form of a code, and what `drop` is given as one."""
    source = ROOT / "src" / "stackconf"
    found = set()
    for file in source.rglob("*.py"):
        if file.relative_to(source).parts[0] in NOT_ISSUES or file.name == "known.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEBAB.fullmatch(node.value):
                found.add(node.value)
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "drop" and node.args[2:]:
                found.add(ast.literal_eval(node.args[2]))
    return found - NO_CODES


def documented() -> dict[str, str]:
    """Each code with its example line."""
    text = section(PAGE, "Issue codes")
    pairs = re.findall(r"^\*\*`([a-z-]+)`\*\* [^\n]+\n\n```text\n([^\n]+)\n```$", text, re.MULTILINE)
    assert len(pairs) == text.count("\n**`")
    return dict(pairs)


def test_the_page_has_every_code_of_the_source():
    assert codes_in_source() == set(documented())


def test_every_documented_code_is_made_to_happen():
    assert set(CASES) == set(documented())


@pytest.mark.parametrize("code", CASES)
def test_the_line_of_a_code_is_the_real_one(code):
    assert documented()[code] == line_of(code)


def test_the_example_at_the_top_is_a_stack_file_and_its_comment_is_right():
    text = blocks(PAGE)[0].text
    stack = model.loads(text, "stack.yaml", {})
    assert stack.issues == ()
    assert [entry.key for entry in stack.providers] == ["inference/ollama"]
    assert [entry.provider_type for entry in stack.disabled] == ["remote::vllm"]
    enabled = model.loads(text, "stack.yaml", {"VLLM_URL": "http://v"})
    assert [entry.key for entry in enabled.providers] == ["inference/ollama", "inference/vllm"]


def test_the_limits_are_the_real_ones():
    numbers = [
        f"{load.MAX_BYTES // 1024**2} MiB",
        f"{load.MAX_DEPTH} levels",
        f"{load.MAX_NODES:,} (".replace(",", " "),
        f"{load.MAX_ALIASED_NODES:,} values".replace(",", " "),
        str(load.MAX_TAG_DIRECTIVES),
        f"{load.MAX_NUMBER_LENGTH:,}".replace(",", " "),
        str(model.MAX_ID),
        f"{load.MAX_ISSUES:,}".replace(",", " "),
    ]
    rows = re.findall(r"^\|[^|]+\| ([^|]+) \|$", section(PAGE, "Limits"), re.MULTILINE)
    assert len(rows[1:]) == len(numbers)
    for row, number in zip(rows[1:], numbers, strict=True):
        assert row.startswith(number), (row, number)


def test_the_settings_are_the_real_ones():
    rows = re.findall(
        r"^\| `stackconf\.(\w+)` \| ([^|]+) \|", section(PAGE, "Settings of stackconf"), re.MULTILINE
    )
    told = {name: tuple(re.findall(r"`(\w+)`", values)) for name, values in rows}
    real = {name: tuple(str(value).lower() for value in values) for name, values in model.SETTINGS.items()}
    assert told == real


class Fields(BaseModel):
    text: str = ""
    secret: SecretStr = SecretStr("")
    number: int = 0
    flag: bool | None = None
    either: bool | str = ""
    free: object = None
    nullable: str | None = "x"
    plain: str = "x"


class Plugin:
    provides = (ProviderType("inference", "remote::fields", Fields),)


def configured(tmp_path, environ, **config):
    lines = "\n".join(f"      {name}: {value}" for name, value in config.items())
    file = tmp_path / "stack.yaml"
    text = provider(type_="remote::fields") + f"    config:\n{lines}\n"
    file.write_text(text, encoding="utf-8")
    registry = Registry(plugins=[Plugin()], entry_points=False)
    with Stack.open(file, registry=registry, hardware=machine(), environ=environ) as stack:
        return stack.resolution.providers["inference/a"]


def test_the_table_of_types_is_right(tmp_path):
    reference = "${env.KEY}"
    config = configured(
        tmp_path,
        {"KEY": "0123"},
        text=reference,
        secret=reference,
        number=reference,
        free=reference,
    ).config
    assert config.text == "0123"
    assert config.secret.get_secret_value() == "0123"
    assert config.number == 123
    assert config.free == 123
    (issue,) = configured(tmp_path, {"KEY": "0123"}, flag=reference).issues
    assert issue.where is not None
    assert configured(tmp_path, {"KEY": "off"}, flag=reference).config.flag is False
    assert configured(tmp_path, {"KEY": "true"}, either=reference).config.either is True
    assert configured(tmp_path, {"KEY": "/a"}, either=reference).config.either == "/a"
    assert configured(tmp_path, {"KEY": "true"}, either=reference, text="${env.A:b}").config.either == "true"
    assert configured(tmp_path, {"KEY": "1"}, free="a${env.KEY}").config.free == "a1"
    assert configured(tmp_path, {"KEY": "1"}, free=reference, text="${env.A:b}").config.free == "1"


def test_a_reference_that_yields_nothing_is_null_where_the_field_may_be(tmp_path):
    config = configured(tmp_path, {}, nullable='"${env.NO:+x}"', plain='"${env.NO:+x}"').config
    assert (config.nullable, config.plain) == (None, "")


def test_an_unquoted_number_in_a_text_field_says_how_to_quote_it(tmp_path):
    (issue,) = configured(tmp_path, {}, text="0123").issues
    assert issue.hint == 'write it in quotes: "0123"'


@pytest.mark.parametrize("spelling", ["null", '""', "__disabled__", "${env.NO:+a}", "~"])
def test_every_spelling_turns_a_provider_off(spelling):
    config = "url: ${env.NOT_SET_EITHER}"
    assert issues_of(provider(config, id_=spelling, type_="remote::unheard-of")) == []
