"""`check --runtime`: what upstream's own dry run lets pass, each in one line.

The faulty files are those of `tests/bad_input/upstream_faults.py`, here judged by the real classes of the
version that they are written for. What is said stands in `said_ogx.txt`.
"""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ogx_kit import one

from stackconf_ogx.hosted import _NOT_RUNNING
from stackconf_ogx.internals.base import quietly

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of upstream's classes

HERE = Path(__file__).parent
SAID = HERE / "said_ogx.txt"


def faults() -> Any:
    file = HERE.parents[2] / "tests" / "bad_input" / "upstream_faults.py"
    spec = importlib.util.spec_from_file_location("ogx_upstream_faults", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FAULTS = faults()
STACKS = {"llama-stack": FAULTS.OLD_STACK, "ogx": FAULTS.NEW_STACK}
STACKS["llama-stack"] = (
    STACKS["llama-stack"]
    .replace("[agents,", "[agents, safety,")  # which agents need
    .replace("inline::sqlite_vec", "inline::sqlite-vec")  # the other name is deprecated
)
STACKS["ogx"] = STACKS["ogx"].replace(  # which the server's own stores need
    "  stores:\n", "    sql_default: {type: sql_sqlite, db_path: sql.db}\n  stores:\n"
)
CASES = {
    f"{name}: {fault}": (name, old, new)
    for name, listed in (("llama-stack", FAULTS.OLD), ("ogx", FAULTS.NEW))
    for fault, old, new in listed
}
RIGHT = ("llama-stack: a conditional that is off",)
EXPECTED: dict[str, list[str]] = {}
for block in SAID.read_text(encoding="utf-8").split("== ")[1:]:
    title, _, lines = block.partition("\n")
    EXPECTED[title] = [line for line in lines.splitlines() if line]


def test_the_files_without_a_fault_are_right(upstream, tmp_path):
    assert upstream.lines(tmp_path, STACKS[upstream.name]) == []


def test_every_fault_is_said():
    assert EXPECTED.keys() == CASES.keys()
    assert [name for name, lines in EXPECTED.items() if not lines] == list(RIGHT)


@pytest.mark.parametrize("name", CASES)
def test_it_is_said(name, llama_or_ogx, tmp_path, monkeypatch):
    runtime, old, new = CASES[name]
    upstream = llama_or_ogx(runtime)
    environ = {"BAD_KEY": "0123456"} if "from the environment" in name else {}
    monkeypatch.setattr(os, "environ", {**os.environ, **environ})
    text = STACKS[runtime]
    assert text.count(old) == 1
    said = upstream.lines(tmp_path, text.replace(old, new), **environ)
    assert [line.replace(str(tmp_path), "@FOLDER@") for line in said] == EXPECTED[name]


def test_the_command_says_the_same(upstream, tmp_path):
    text = STACKS[upstream.name].replace("max_results: 3", "max_results: many")
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    program = "import sys; sys.argv[0] = 'stackconf'; from stackconf.cli.main import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", program, "check", "--runtime", upstream.name, "run.yaml"],
        cwd=tmp_path,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "config.max_results: should be a whole number, not 'many'" in done.stderr
    assert all(line.startswith("run.yaml:") for line in done.stderr.splitlines())


VALUES = (None, 7, "x", "${env.OGX_T_NO}", [], [7], {}, {"a": 7}, ["a", {"b": None}])


def places(data: Any) -> Iterator[list[Any]]:
    yield []
    for key, inner in (
        data.items() if isinstance(data, dict) else enumerate(data if isinstance(data, list) else [])
    ):
        for path in places(inner):
            yield [key, *path]


def test_whatever_stands_anywhere_is_told_in_lines(upstream, tmp_path):
    """Each place of a right file, with each kind of value in it: nothing raises, and no line is a defect."""
    whole = yaml.safe_load(STACKS[upstream.name]) | {
        "stackconf": {
            "policy": {"tool_runtime/remote::brave-search": {"allow": ["api_key"], "deny": ["timeout"]}}
        },
        "external_providers_dir": str(tmp_path),
    }
    tried = 0
    for path in list(places(whole))[1:]:
        for value in VALUES:
            data = copy.deepcopy(whole)
            spot = data
            for step in path[:-1]:
                spot = spot[step]
            spot[path[-1]] = value
            issues = upstream.issues(tmp_path, yaml.safe_dump(data))
            assert not [each for each in issues if each.code in {"hook-error", "plugin-load-error"}], (
                path,
                value,
            )
            tried += 1
    assert tried > 300


# What the environment gives


@pytest.mark.parametrize(
    ("value", "kind"), [("0123", "a number"), ("1e5", "a number"), ("true", "a boolean")]
)
def test_a_key_that_looks_like_something_else_is_a_warning(ogx, tmp_path, value, kind):
    text = one(ogx, "tool_runtime", "remote::brave-search", "{api_key: '${env.OGX_T_KEY:=none}'}")
    (line,) = ogx.lines(tmp_path, text, OGX_T_KEY=value)
    assert line.startswith("stack.yaml:7:23: warning: tool_runtime/one: config.api_key: ")
    assert f"itself takes what comes from `OGX_T_KEY` for {kind}" in line
    assert value not in line
    assert ogx.lines(tmp_path, text, OGX_T_KEY="sk-0123") == []


def test_the_server_would_refuse_it(ogx):
    """The premise: with upstream's conversion, its own class refuses the key."""
    config_class = ogx.config_class("tool_runtime/remote::brave-search")
    with pytest.raises(ValueError, match="valid string"):
        config_class(api_key=ogx.internals.by_looks("0123"))


def test_what_is_no_text_may_look_like_a_number(ogx, tmp_path):
    text = one(ogx, "tool_runtime", "remote::brave-search", "{max_results: '${env.OGX_T_MOST:=3}'}")
    assert ogx.lines(tmp_path, text, OGX_T_MOST="5") == []


def test_a_boolean_beside_a_path_is_a_boolean(ogx, tmp_path):
    config = "{base_url: 'http://x/v1', network: {tls: {verify: '${env.OGX_T_TLS:=true}'}}}"
    text = one(ogx, "inference", "remote::vllm", config)
    with ogx.stack(tmp_path, text) as stack:
        assert stack.issues == ()
        assert stack.resolution.providers["inference/one"].config.network.tls.verify is True


# Addresses, stores, dependencies


@pytest.mark.parametrize("address", ["localhost:11434", "ftp://x", "http://", "http://x:port", "${env.NO"])
def test_what_is_no_address_is_said(upstream, tmp_path, address):
    name = "url" if upstream.name == "llama-stack" else "base_url"
    text = one(upstream, "inference", "remote::ollama", f"{{{name}: '{address}'}}")
    (line,) = upstream.lines(tmp_path, text)
    assert line.startswith("stack.yaml:7:")
    assert f"config.{name}: " in line


def test_a_default_of_the_class_that_does_not_work_is_said(llama, tmp_path):
    """Upstream's KVStoreConfig default is the bare text `sqlite`."""
    text = one(llama, "vector_io", "inline::faiss", "{}")
    (line,) = llama.lines(tmp_path, text)
    assert line.endswith(
        "config.kvstore: required, for the type's own default ('sqlite') does not work; add `kvstore`"
    )


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("kv_default", ""),
        ("kv_defualt", "`storage.backends` has no `kv_defualt`; did you mean `kv_default`?"),
        ("sql_default", "the backend `sql_default` is sql, and kv is wanted; take kv_default"),
    ],
)
@pytest.mark.parametrize("own", [True, False])
def test_a_store_is_looked_for_among_the_backends(ogx, tmp_path, backend, said, own):
    top = (
        "storage:\n  backends:\n    kv_default: {type: kv_sqlite, db_path: x}\n"
        "    sql_default: {type: sql_sqlite, db_path: y}\n"
    )
    config = f"{{persistence: {{namespace: n, backend: {backend}}}}}"
    lines = ogx.lines(tmp_path, one(ogx, "vector_io", "inline::faiss", config, top if own else ""))
    assert len(lines) == bool(said)
    assert all(line.endswith(f"config.persistence.backend: {said}") for line in lines)
    assert all(line.startswith("stack.yaml:7:") for line in lines)


def test_deprecated_types_are_a_warning(llama, tmp_path):
    text = one(llama, "vector_io", "inline::sqlite_vec", "{db_path: x}")
    (line,) = llama.lines(tmp_path, text)
    assert "warning: vector_io/one: the type is deprecated: Please use the `inline::sqlite-vec`" in line


NEEDS = {
    "llama-stack": ("safety", "inline::llama-guard", "{}"),
    "ogx": ("messages", "inline::builtin", "{kvstore: {namespace: n, backend: kv_default}}"),
}


@pytest.mark.parametrize("apis", ["", "apis: []\n", "apis: [inference, {api}]\n", "apis: [{api}]\n"])
def test_an_api_that_a_provider_needs_is_missing_where_the_servers_resolver_says_so(upstream, tmp_path, apis):
    api, kind, config = NEEDS[upstream.name]
    text = one(upstream, api, kind, config, apis.format(api=api))
    lines = upstream.lines(tmp_path, text)
    failed = resolved(upstream, text)
    assert ("inference" in failed) is bool(lines) is (apis == "apis: [{api}]\n")
    assert all("needs `inference`, which `apis` does not list" in line for line in lines)


def test_one_that_is_not_routed_needs_a_provider(ogx, tmp_path):
    top = (
        f"storage:\n  backends:\n    kv_default: {{type: kv_sqlite, db_path: {tmp_path}/kv}}\n"
        f"    sql_default: {{type: sql_sqlite, db_path: {tmp_path}/sql}}\n"
    )
    text = one(ogx, "tool_runtime", "inline::file-search", "{}", top)
    (line,) = ogx.lines(tmp_path, text)
    assert "needs a provider of `files`, and the stack has none" in line
    assert "files" in resolved(ogx, text)


def resolved(upstream, text: str) -> str:
    """What the server's own resolver says, as far as it comes without a store of its own."""
    package = "ogx.core" if upstream.name == "ogx" else "llama_stack.distribution"
    with quietly():
        resolver = importlib.import_module(f"{package}.resolver")
        config = upstream.internals.file_class.model_validate(yaml.safe_load(text))
        registry = importlib.import_module(f"{package}.distribution").get_provider_registry()
        if upstream.name == "ogx" and "storage" in text:
            importlib.import_module("ogx.core.stack")._initialize_storage(config)
        try:
            asyncio.run(resolver.resolve_impls(config, registry, None, []))
        except Exception as error:  # noqa: BLE001 (whatever the server raises)
            return str(error)
    return ""


RESOURCES = """\
version: '2'
image_name: x
apis: [inference, safety, scoring, telemetry]
providers:
  inference:
  - {provider_id: ollama, provider_type: 'remote::ollama', config: {}}
  - {provider_id: __disabled__, provider_type: 'remote::vllm', config: {}}
models:
- {model_id: a, provider_id: ollama}
- {model_id: b, provider_id: olama}
- {model_id: c, provider_id: "${env.OGX_T_NOBODY:vllm}"}
- {model_id: d}
shields: [{shield_id: s, provider_id: guard}]
benchmarks: [{dataset_id: d, benchmark_id: e, scoring_functions: [], provider_id: not-served}]
"""


def test_what_nobody_serves_is_said(llama, tmp_path):
    """The server says `KeyError: <Api.telemetry: 'telemetry'>`, or "Provider `olama` not found"."""
    telemetry, *rest = llama.lines(tmp_path, RESOURCES)
    assert telemetry.startswith("stack.yaml:3:36: error: apis[3]: `telemetry` is to be served, and the stack")
    assert telemetry.endswith("; add one under `providers.telemetry`, or take it out of `apis`")
    fault = "provider_id: `{}` has no provider `{}`;"
    assert rest == [
        f"stack.yaml:10:30: error: models[1].{fault.format('inference', 'olama')} did you mean `ollama`?",
        f"stack.yaml:11:30: error: models[2].{fault.format('inference', 'vllm')} it has `ollama`",
        f"stack.yaml:13:39: error: shields[0].{fault.format('safety', 'guard')} it has none",
    ]


def test_nothing_is_applied_without_a_server(upstream, tmp_path):
    with upstream.stack(tmp_path, one(upstream, "vector_io", "remote::qdrant", "{}")) as stack:
        (entry,) = stack.file.providers
        hooks = stack.manager.registry.find("vector_io", "remote::qdrant").hooks
        applied = hooks.apply_config(entry.provider, None, None)
    assert applied.pending == _NOT_RUNNING
