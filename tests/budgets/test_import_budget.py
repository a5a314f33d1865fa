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


def test_a_client_loads_neither_a_server_nor_what_resolves_and_stores():
    made = modules_after("from stackconf import AsyncClient, Client")
    assert "httpx" not in made
    modules = modules_after("from stackconf import Client; Client('http://127.0.0.1:8420')")
    assert "httpx" in modules
    for name in ("pluggy", "yaml", "sqlite3", "fastapi", "uvicorn", "asyncio"):
        assert name not in made
    ours = {name.split(".")[1] for name in modules if name.startswith("stackconf.")}
    assert ours.isdisjoint({"registry", "server", "store", "stack", "manager", "configurations", "hardware"})
