from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from docs_kit import blocks, page, section
from pydantic import BaseModel

from stackconf import Accelerator, ApplyError, InvalidConfig, Problem, Stack, hookspecs
from stackconf.manager import discover_with
from stackconf.registry.hooks import HOOKS
from stackconf.registry.registry import Registry
from stackconf.testing import machine, no_hardware

pytestmark = pytest.mark.filterwarnings("ignore:'encoding' argument:EncodingWarning")  # the examples' own

TYPE = {"provider_id": "tiny", "provider_type": "inline::tiny"}


def signature_in(text: str) -> inspect.Signature:
    namespace: dict[str, Callable[..., object]] = {}
    exec(compile(f"from __future__ import annotations\n{text}", "<docs>", "exec"), namespace)
    (function,) = (value for value in namespace.values() if inspect.isfunction(value))
    return inspect.signature(function)


def example_in_docs(hook: str) -> str:
    return blocks(section(page("hooks.md"), hook))[1].text


def example_in_docstring(hook: str) -> str:
    text = inspect.getdoc(getattr(hookspecs, hook)) or ""
    example = re.search(r"^Example.*:\n\n((?:(?:    .*)?\n?)+)\Z", text, re.MULTILINE)
    assert example is not None, hook
    return textwrap.dedent(example[1])


def registry_of(folder: Path, code: str) -> Registry:
    file = folder / "tiny.py"
    file.write_text(code, encoding="utf-8")
    registry = Registry(files=[file], entry_points=False)
    assert registry.problems == []
    return registry


def open_stack(folder: Path, code: str, hardware=None, **config) -> Stack:
    file = folder / "stack.yaml"
    file.write_text(json.dumps({"providers": {"inference": [{**TYPE, "config": config}]}}), encoding="utf-8")
    return Stack.open(file, registry=registry_of(folder, code), hardware=hardware or machine(cores=4))


def users(**config):
    return {"inference": [{"provider_id": "tiny", "config": config}]}


@pytest.mark.parametrize("hook", HOOKS)
def test_the_page_shows_each_hook_s_exact_signature(hook):
    shown = blocks(section(page("hooks.md"), hook))[0].text
    assert f"def {hook}(" in shown
    assert str(signature_in(shown)) == str(inspect.signature(getattr(hookspecs, hook)))


def test_every_hook_of_the_specification_has_a_section():
    assert re.findall(r"^## ([a-z]+_[a-z_]+)$", page("hooks.md"), re.MULTILINE) == list(HOOKS)


def test_discover_hardware_in_the_docs_runs(tmp_path, monkeypatch):
    cards = tmp_path / "cards.json"
    monkeypatch.setenv("SITE_CARDS", str(cards))
    registry = registry_of(tmp_path, example_in_docs("discover_hardware"))
    absent = discover_with(registry)
    assert absent.problems == (Problem("site", "accelerators", "absent", f"there is no {cards}"),)
    cards.write_text(json.dumps([{"name": "one", "memory_bytes": 8}, {"name": "two"}]), encoding="utf-8")
    found = discover_with(registry)
    assert [card.name for card in found.accelerators] == ["one", "two"]
    assert found.accelerators[1].memory_bytes is None
    cards.write_text("{", encoding="utf-8")
    assert [problem.kind for problem in discover_with(registry).problems] == ["error"]


def test_default_config_in_the_docs_runs(tmp_path):
    with open_stack(tmp_path, example_in_docs("default_config")) as stack:
        threads, size = stack.explain("tiny")
        assert (threads.value, threads.layer) == (4, "hardware")
        assert (size.path, size.value) == ("pool.size", 8)
        assert size.reason == "twice the 4 threads, so that none waits"
        assert stack.issues == ()


def test_default_config_in_the_docs_derives_nothing_from_nothing(tmp_path):
    with open_stack(tmp_path, example_in_docs("default_config"), no_hardware()) as stack:
        assert {origin.layer for origin in stack.explain("tiny")} == {"class"}


def test_validate_user_config_in_the_docs_runs(tmp_path):
    with open_stack(tmp_path, example_in_docs("validate_user_config"), machine(memory_gib=1)) as stack:
        with pytest.raises(InvalidConfig) as refused:
            stack.configurations.register(users(cache_bytes=2**30))
        assert "use at most 536870912" in str(refused.value.issues[0])
        registered = stack.configurations.register(users(cache_bytes=2**20))
        assert [issue.message for issue in registered.warnings] == ["a larger cache is lost at a restart"]


def test_apply_config_in_the_docs_runs(tmp_path):
    settings = tmp_path / "tiny.conf"
    code = example_in_docs("apply_config")
    with open_stack(tmp_path, code, settings_file=str(settings)) as stack:
        assert stack.apply().state == "applied"
        assert settings.read_text(encoding="utf-8") == "threads = 2\n"
        stack.configurations.register(users(threads=5))
        assert stack.apply().outcomes[0].detail == f"wrote {settings}"
        assert settings.read_text(encoding="utf-8") == "threads = 5\n"
    module = loaded(code)
    applied = module.apply_config(None, module.Config(settings_file=str(settings)))
    assert not settings.exists()
    assert applied.check() is None
    applied.undo()
    assert settings.read_text(encoding="utf-8") == "threads = 5\n"
    assert applied.check() == f"{settings} has been changed by somebody else"


def test_apply_config_in_the_docs_is_pending_where_its_folder_is_missing(tmp_path):
    code = example_in_docs("apply_config")
    with open_stack(tmp_path, code, settings_file=str(tmp_path / "gone" / "tiny.conf")) as stack:
        assert stack.apply().state == "pending"
        with pytest.raises(ApplyError, match="is not mounted"):
            stack.apply(require_healthy=True)


def loaded(code: str) -> ModuleType:
    module = ModuleType("example")
    exec(compile(code, "<example>", "exec"), module.__dict__)
    return module


PROVIDES = """
from pydantic import BaseModel
from stackconf import ProviderType, user_field

class Config(BaseModel):
    threads: int = user_field(1)
    cache_bytes: int = user_field(1)
    settings_file: str = ""

provides = (ProviderType("inference", "inline::tiny", Config),)
"""


def test_discover_hardware_in_its_docstring_runs(tmp_path):
    cards = tmp_path / "cards"
    code = example_in_docstring("discover_hardware").replace("/etc/site/cards", str(cards))
    registry = registry_of(tmp_path, code)
    (problem,) = discover_with(registry).problems
    assert (problem.detector, problem.kind) == ("site", "error")
    cards.write_text("one two", encoding="utf-8")
    found = discover_with(registry).accelerators
    assert found[1] == Accelerator("acme", name="two", uuid="ACME-1")


def test_default_config_in_its_docstring_runs(tmp_path):
    code = example_in_docstring("default_config") + PROVIDES
    with open_stack(tmp_path, code, machine(cores=6)) as stack:
        (origin,) = stack.explain("tiny", "threads")
        assert (origin.value, origin.layer) == (6, "hardware")
        assert origin.reason.startswith("6 usable physical cores")


def test_validate_user_config_in_its_docstring_runs(tmp_path):
    code = example_in_docstring("validate_user_config") + PROVIDES
    with open_stack(tmp_path, code, machine(memory_gib=1), cache_bytes=2**31) as stack:
        assert [issue.path for issue in stack.issues] == ["config.cache_bytes"]


def test_apply_config_in_its_docstring_runs(tmp_path):
    settings = tmp_path / "settings"
    code = example_in_docstring("apply_config") + PROVIDES
    with open_stack(tmp_path, code, settings_file=str(settings), threads=3) as stack:
        assert stack.apply().state == "applied"
        assert settings.read_text(encoding="utf-8") == "threads = 3\n"
    module = loaded(code)
    config = module.Config(settings_file=str(settings), threads=9)
    assert isinstance(config, BaseModel)
    module.apply_config(None, config, None).undo()
    assert settings.read_text(encoding="utf-8") == "threads = 3\n"
    assert module.apply_config(None, None, config).pending is None
