"""What may be imported, and when: counts of modules, which are the same on every machine."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "asyncio",
    "attr",
    "attrs",
    "click",
    "importlib.metadata",
    "psutil",
    "pydantic",
    "pydantic_core",
    "pynvml",
    "rich",
    "sqlite3",
    "yaml",
)
MOST_MODULES = 100


def modules_after(code: str, *arguments: str) -> set[str]:
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("code", ["import stackconf", "from stackconf import hookimpl"])
def test_importing_costs_few_modules_and_none_of_the_heavy_ones(code):
    modules = modules_after(code)
    assert "stackconf" in modules
    assert len(modules) <= MOST_MODULES
    assert modules.isdisjoint(HEAVY)


def test_a_plugin_module_that_needs_only_the_words_loads_neither_pydantic_nor_yaml():
    modules = modules_after("from stackconf import Issue, ProviderType, because, hookimpl, memory_share")
    assert modules.isdisjoint(set(HEAVY) - {"attr", "attrs"})


def test_the_count_notices_a_heavy_import():
    modules = modules_after("import stackconf, asyncio")
    assert not modules.isdisjoint(HEAVY)
