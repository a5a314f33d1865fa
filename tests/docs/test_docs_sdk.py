from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys

import pytest
from docs_kit import DOCS, EXAMPLES, ROOT, page, prose, section

import stackconf
from stackconf import InvalidConfig, Stack, StackconfError, errors
from stackconf.configurations import Configurations
from stackconf.registry.registry import Registry
from stackconf.testing import machine

PAGE = page("sdk.md")
STACK = EXAMPLES / "issue-993" / "stack.yaml"


def public(cls: type) -> list[str]:
    return [name for name in vars(cls) if not name.startswith("_")]


@pytest.mark.parametrize("name", public(Stack))
def test_the_page_names_every_method_of_a_stack(name):
    assert re.search(rf"\b(stack\.|Stack\.|`){name}\b", PAGE)


@pytest.mark.parametrize("name", public(Configurations))
def test_the_page_names_every_method_of_configurations(name):
    assert re.search(rf"`{name}\(", section(PAGE, "Configurations"))


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (Stack.open, "`Stack.open("),
        (Stack.apply, "`stack.apply("),
        (Stack.explain, "`stack.explain("),
        (Configurations.register, "`register("),
        (Registry, "`Registry("),
    ],
)
def test_the_page_shows_arguments_and_defaults_as_they_are(function, shown):
    signature = inspect.signature(function)
    wanted = str(
        signature.replace(
            parameters=[
                each.replace(annotation=inspect.Parameter.empty)
                for each in signature.parameters.values()
                if each.name not in {"self", "cls"}
            ],
            return_annotation=inspect.Signature.empty,
        )
    ).replace("'", '"')
    assert f"{shown.rstrip('(')}{wanted}`" in PAGE


def test_the_page_has_every_error():
    told = re.findall(r"^\| `(\w+)`", section(PAGE, "Errors"), re.MULTILINE)
    real = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, StackconfError) and value is not StackconfError
    }
    assert set(told) == real
    assert real < set(stackconf.__all__)


def test_the_links_between_the_pages_lead_somewhere():
    missing = []
    for file in [*DOCS.glob("*.md"), ROOT / "CONTRIBUTING.md", EXAMPLES / "provider" / "README.md"]:
        for target in re.findall(r"\]\(([^)]+)\)", prose(file.read_text(encoding="utf-8"))):
            path, _, anchor = target.partition("#")
            if path.startswith(("http:", "https:")):
                continue
            there = (file.parent / path).resolve() if path else file
            if not there.exists():
                missing.append(f"{file.name}: {target}")
            elif anchor and anchor not in anchors(there.read_text(encoding="utf-8")):
                missing.append(f"{file.name}: {target} (no such heading)")
    assert not missing


def anchors(text: str) -> set[str]:
    """The anchors that a code host gives the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.fixture
def stack_file(tmp_path):
    return shutil.copy(STACK, tmp_path / "stack.yaml")


def test_the_sdk_example_runs_on_the_stack_of_issue_993(stack_file, tmp_path):
    pytest.importorskip("stackconf_ollama", reason="the example uses the project's own plugins")
    environment = {**os.environ, "OLLAMA_URL": "http://localhost:1", "STACKCONF_ACTOR": "ada"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / "sdk.py", stack_file],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "revision 1 keeps" in done.stdout
    assert "users see http://localhost:12345" in done.stdout
    assert "8 providers would change" in done.stdout
    assert "inference/ollama: pending: cannot reach http://localhost:12345" in done.stdout
    assert "vector_io/faiss: applied" in done.stdout
    assert done.stdout.endswith("revision 2; 0 configurations left\n")


def test_the_policy_example_holds_for_providers_it_does_not_know(tmp_path):
    file = tmp_path / "stack.yaml"
    acme = "{provider_id: acme, provider_type: 'remote::acme'}"
    file.write_text(f"providers: {{inference: [{acme}]}}", encoding="utf-8")
    plugins = [EXAMPLES / "policy_plugin.py", EXAMPLES / "provider" / "stackconf_acme.py"]
    registry = Registry(files=plugins, entry_points=False)
    assert registry.problems == []
    with Stack.open(file, registry=registry, hardware=machine(cores=8)) as stack:
        (threads,) = stack.explain("acme", "threads")
        assert threads.value == 7
        assert threads.reason == "8 physical cores, one thread each; site policy: one core is left to others"
        for url, fine in (("http://gpu.example.org:80", True), ("http://example.com", False)):
            config = {"inference": [{"provider_id": "acme", "config": {"url": url}}]}
            if fine:
                stack.configurations.register(config)
                continue
            with pytest.raises(InvalidConfig) as refused:
                stack.configurations.register(config)
            assert str(refused.value.issues[0]) == (
                "error: inference/acme: config.url: `example.com` is outside the site;"
                " use this machine or a host below `.example.org`"
            )
