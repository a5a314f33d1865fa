"""Every access to upstream's inside, against the real package."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from ogx_kit import one
from pydantic import BaseModel

from stackconf import PluginLoadError
from stackconf_ogx import internals
from stackconf_ogx.internals import SUPPORTED, internals_of
from stackconf_ogx.internals.base import MissingVariable, replaced_as_far_as_possible
from stackconf_ogx.internals.ogx_1_5 import Ogx15

COUNTS = {"llama-stack": 66, "ogx": 64}
ROUTED = {
    "llama-stack": {"models", "shields", "vector_dbs", "datasets", "scoring_functions", "benchmarks"},
    "ogx": {"models", "vector_stores"},
}


def test_nothing_of_upstream_is_imported_before_a_stack_has_chosen_it():
    code = "import sys, stackconf_ogx.runtimes; print({'ogx', 'ogx_api', 'llama_stack'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_every_builtin_type_is_there_and_its_class_can_be_had(upstream):
    specs = upstream.internals.builtin()
    assert len(specs) == len({spec.key for spec in specs}) == COUNTS[upstream.name]
    assert all(issubclass(upstream.config_class(spec.key), BaseModel) for spec in specs)
    assert all(spec.provider_type.startswith("remote::" if spec.remote else "inline::") for spec in specs)


def test_the_apis_and_who_serves_them(upstream):
    known = upstream.internals
    assert known.routed.keys() == ROUTED[upstream.name] | {"tool_groups"}
    assert set(known.routed) | set(known.routed.values()) | known.own_apis <= known.apis()
    assert {spec.api for spec in known.builtin()}.isdisjoint(known.routed.keys() | known.own_apis)
    needed = {api for spec in known.builtin() for api in spec.needs}
    provided = {spec.api for spec in known.builtin()}
    assert {known.routed.get(api, api) for api in needed} <= provided | known.own_apis


def test_references_are_replaced_as_the_server_does_it(upstream, monkeypatch):
    monkeypatch.setenv("OGX_T_SET", "8399")
    form = ":=" if upstream.internals.grammar == "new" else ":"
    data = {"server": {"port": "${env.OGX_T_SET}", "host": f"${{env.OGX_T_NO{form}local}}"}}
    server = upstream.internals.replaced(data)["server"]
    assert (str(server["port"]), server["host"]) == ("8399", "local")
    with pytest.raises(MissingVariable) as raised:
        upstream.internals.replaced({"a.b": [{"c": "${env.OGX_T_NO}"}]})
    assert (raised.value.name, raised.value.path) == ("OGX_T_NO", "a.b[0].c")


def test_every_missing_variable_is_found_with_its_path(upstream):
    data = {"a.b": [{"c": "${env.OGX_T_A}"}], "d": {"e": "x ${env.OGX_T_B}"}, "f": "ok"}
    replaced, missing = replaced_as_far_as_possible(upstream.internals, data)
    assert missing == [("OGX_T_A", ("a.b", 0, "c")), ("OGX_T_B", ("d", "e"))]
    assert replaced is not None
    assert replaced["f"] == "ok"


def test_text_is_taken_for_what_it_looks_like(upstream):
    texts = ["0123", "1e5", "True", "abc", ""]
    guessed = [123, 100000.0, True, "abc", None] if upstream.name == "ogx" else texts
    assert [upstream.internals.by_looks(text) for text in texts] == guessed


@pytest.mark.parametrize("kind", ["remote", "inline"])
def test_a_file_of_an_external_provider_declares_a_type(upstream, kind):
    common = {"module": "acme", "config_class": "acme.Config", "pip_packages": ["acme"]}
    data: dict[str, object] = {**common, "api_dependencies": ["files"]}
    if kind == "remote" and upstream.name == "llama-stack":
        data = {"adapter": {**common, "adapter_type": "acme"}, "api_dependencies": ["files"]}
    elif kind == "remote":
        data["adapter_type"] = "acme"
    spec = upstream.internals.spec_of_file(data, "inference", kind, "acme")
    assert (spec.key, spec.module, spec.config_class) == (
        f"inference/{kind}::acme",
        "acme",
        "acme.Config",
    )
    assert (spec.packages, spec.needs, spec.remote) == (("acme",), ("files",), kind == "remote")


def test_a_module_declares_one_type_or_several(ogx, tmp_path, monkeypatch):
    package = tmp_path / "ogx_t_module"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "provider.py").write_text(
        "from ogx_api import Api, RemoteProviderSpec\n"
        "def spec(kind):\n"
        "    return RemoteProviderSpec(api=Api.inference, provider_type=f'remote::{kind}',\n"
        "        adapter_type=kind, module='ogx_t_module', config_class='ogx_t_module.Config')\n"
        "def get_provider_spec():\n"
        "    return [spec('a'), spec('b')]\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = ogx.internals.spec_of_module("ogx_t_module==1.0", "inference", "remote::b")
    assert found is not None
    assert (found.key, found.config_class) == ("inference/remote::b", "ogx_t_module.Config")
    assert ogx.internals.spec_of_module("ogx_t_module", "inference", "remote::c") is None


def test_an_external_api_is_known_after_its_folder_was_read(ogx, tmp_path):
    declared = {"name": "ogx_t_weather", "module": "ogx_t_no_module", "protocol": "Weather"}
    (tmp_path / "weather.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    assert ogx.internals.load_apis(tmp_path) == []
    assert "ogx_t_weather" in ogx.internals.apis()


def test_references_to_stores_are_told_from_other_mappings(ogx):
    from ogx.core.storage.datatypes import KVStoreReference, SqlStoreReference

    told = ogx.internals.store_reference
    assert told(KVStoreReference(namespace="n", backend="kv_default")) == ("kv_default", "kv")
    assert told(SqlStoreReference(table_name="t", backend="sql_default")) == ("sql_default", "sql")
    assert told({"backend": "x"}) is None
    assert ogx.internals.store_families({}) == {"kv_default": "kv", "sql_default": "sql"}
    redis = {"storage": {"backends": {"fast": {"type": "kv_redis"}}}}
    assert ogx.internals.store_families(redis) == {"fast": "kv"}
    assert ogx.internals.store_families({"storage": {"backends": {"a": {"type": "x"}}}}) == {}


@pytest.mark.parametrize(
    ("name", "found", "right"),
    [
        ("ogx", "1.5.0", True),
        ("ogx", "1.5.12", True),
        ("ogx", "1.6.0", False),
        ("ogx", "1.4.9", False),
        ("llama-stack", "0.2.12", True),
        ("llama-stack", "0.2.13", False),
        ("llama-stack", "0.2.23", False),
    ],
)
def test_versions_that_nobody_looked_into_are_not_opened(name, found, right):
    assert SUPPORTED[name].has(found) is right


def test_such_a_version_is_one_line(monkeypatch):
    monkeypatch.setattr(internals, "version", lambda _: "1.9.1")
    with pytest.raises(PluginLoadError) as raised:
        internals_of("ogx")
    assert str(raised.value) == (
        "plugin `ogx`: ogx 1.9.1 is installed, and ogx>=1.5,<1.6 is supported;"
        " run `pip install 'ogx>=1.5,<1.6'` (Python 3.12 or newer)"
    )


def test_the_label_says_which_version_it_is(upstream):
    assert upstream.empty.label.startswith(f"{upstream.name} ")
    assert isinstance(upstream.internals, Ogx15) is (upstream.name == "ogx")


def test_a_type_of_the_registry_makes_a_provider_of_the_stack(upstream, tmp_path):
    key = "max_results"
    text = one(upstream, "tool_runtime", "remote::brave-search", f"{{{key}: 5}}")
    with upstream.stack(tmp_path, text) as stack:
        config = stack.resolution.providers["tool_runtime/one"].config
    assert type(config) is upstream.config_class("tool_runtime/remote::brave-search")
    assert config.max_results == 5
