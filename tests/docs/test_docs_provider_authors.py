from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest
from docs_kit import EXAMPLES, blocks, page

from stackconf import Provider, Stack
from stackconf.registry.registry import Registry
from stackconf.testing import machine, stack_with

PROVIDER = EXAMPLES / "provider"
PLUGIN = PROVIDER / "stackconf_acme.py"
SHOWN = [block for block in blocks(page("provider-authors.md")) if block.file]


def load(path):
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server():
    with load(PROVIDER / "tests" / "acme_server.py").running() as server:
        yield server


@pytest.mark.parametrize("name", ["stackconf_acme.py", "pyproject.toml", "stack.yaml"])
def test_the_blocks_of_the_page_are_the_example(name):
    shown = "\n".join(block.text for block in SHOWN if block.file == name)
    file = (PROVIDER / name).read_text(encoding="utf-8")
    lines = [line for line in shown.splitlines() if line]
    assert lines == [line for line in file.splitlines() if line]


def test_the_page_shows_no_file_that_the_example_lacks():
    assert {block.file for block in SHOWN} == {"stackconf_acme.py", "pyproject.toml", "stack.yaml"}


def test_the_example_works_as_one_file(tmp_path, server):
    registry = Registry(files=[PLUGIN], entry_points=False)
    hardware = machine(cores=8, memory_gib=32)
    options = {"registry": registry, "hardware": hardware, "store": tmp_path / "store"}
    users = {"inference": [{"provider_id": "acme", "config": {"threads": 3, "model_dir": "/"}}]}
    with Stack.open(PROVIDER / "stack.yaml", environ={"ACME_URL": server.url}, **options) as stack:
        (threads,) = stack.explain("acme", "threads")
        assert (threads.value, threads.layer) == (8, "hardware")
        assert threads.reason == "8 physical cores, one thread each"
        registered = stack.configurations.register(users)
        assert [issue.path for issue in registered.dropped] == ["config.model_dir"]
        assert stack.apply().state == "applied"
        assert server.settings["threads"] == 3
        stack.configurations.unregister("default")
        stack.apply()
        assert server.settings["threads"] == 8


def test_a_provider_that_leaves_gives_the_server_its_own_settings_back(tmp_path, server):
    file = tmp_path / "stack.yaml"
    registry = Registry(files=[PLUGIN], entry_points=False)
    entry = {"provider_id": "acme", "provider_type": "remote::acme", "config": {"url": server.url}}
    for entries, settings in (([entry], {"threads": 8}), ([], {})):
        file.write_text(json.dumps({"providers": {"inference": entries}}), encoding="utf-8")
        with Stack.open(file, registry=registry, hardware=machine()) as stack:
            stack.apply()
        assert server.settings.items() >= settings.items()
    assert server.settings == {}


def test_the_example_s_own_tests_pass():
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=PROVIDER,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_page_s_table_of_testing_helpers_is_complete():
    from stackconf import testing

    public = {
        name
        for name, value in vars(testing).items()
        if callable(value) and getattr(value, "__module__", "") == testing.__name__
    }
    missing = [name for name in public if f"`{name}(" not in page("provider-authors.md")]
    assert missing == []


def test_the_provider_in_the_process_works_as_shown(tmp_path):
    (shown,) = [block.text for block in blocks(page("provider-authors.md")) if "Holder(" in block.text]
    (tmp_path / "pool.py").write_text(shown, encoding="utf-8")
    plugin = load(tmp_path / "pool.py")
    entry = {"provider_id": "pool", "provider_type": "inline::pool"}
    with stack_with([plugin], {"inference": [entry]}) as stack:
        assert stack.apply().state == "applied"
        first = plugin.current()
        stack.configurations.register({"inference": [{"provider_id": "pool", "config": {"size": 9}}]})
        assert stack.apply().state == "applied"
        assert len(plugin.current().free) == 9
        assert first.open, "until the next change"
        plugin.current().close()
        second = plugin.current()
        changed = plugin.apply_config(Provider("inference", "pool", "inline::pool"), plugin.Config(size=2))
        changed.undo()
        assert plugin.current() is second
        assert changed.check_undo() == "the pool is closed"
