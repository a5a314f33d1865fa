"""Whole files: what upstream itself ships is right, and what its parser refuses is said."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from ogx_kit import MACHINE, one
from pydantic import ValidationError

from stackconf import Registry, Stack
from stackconf.stackfile.model import loads
from stackconf_ogx.hosted import HostedTypes
from stackconf_ogx.internals.base import quietly
from stackconf_ogx.runtimes import UpstreamRuntime

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of upstream's classes

INSTALL = "missing-package"
SETTING = {"env-missing", "guessed-type"}
"""What depends on where the tests run, and not on the file."""

NOT_RIGHT = {
    "llama-stack": {
        "experimental-post-training/run.yaml": ["`conda_env`", "responses_store: required"],
        "nvidia/run-with-safety.yaml": ["the provider id `nvidia` is taken in inference"],
    },
    "ogx": {
        "open-benchmark/config.yaml": ["needs a provider of `files`"] * 2,
        "postgres-demo/config.yaml": ["needs a provider of `files`"] * 2,
    },
}
"""The faults of upstream's own files: the server ignores `conda_env` and one of the two providers, and
fails with the others.
"""


def shipped_files(package: str, pattern: str) -> list[Path]:
    found = find_spec(package)
    folders = list(found.submodule_search_locations or ()) if found else []
    return sorted(file for folder in folders for file in Path(folder).glob(pattern))


OWN = {
    "llama-stack": shipped_files("llama_stack", "templates/*/run*.yaml"),
    "ogx": shipped_files("ogx", "distributions/*/*.yaml"),
}


def said(upstream, file: Path, folder: Path) -> list[str]:
    store = folder / "store.sqlite3"
    with Stack.open(file, store=store, registry=Registry(), hardware=MACHINE, runtime=upstream.name) as stack:
        return [
            str(issue).removeprefix(f"{file.parent}/")
            for issue in stack.issues
            if issue.code != INSTALL and issue.code not in SETTING
        ]


def test_the_files_that_upstream_ships_have_no_fault(upstream, tmp_path):
    files = [
        file for file in OWN[upstream.name] if "providers" in yaml.safe_load(file.read_text(encoding="utf-8"))
    ]
    assert files
    lines = {f"{file.parent.name}/{file.name}": said(upstream, file, tmp_path) for file in files}
    wrong = {name: each for name, each in lines.items() if each}
    assert wrong.keys() == NOT_RIGHT[upstream.name].keys()
    for name, parts in NOT_RIGHT[upstream.name].items():
        assert len(wrong[name]) == len(parts), wrong[name]
        assert all(part in line for line, part in zip(wrong[name], parts, strict=True)), wrong[name]


TOP = {
    "wrong type": "server: {port: many}\n",
    "out of range": "server: {port: 80}\n",
    "a list for a mapping": "server: []\n",
    "logging": "logging: {category_levels: [x]}\n",
    "right": "server: {port: 8400}\n",
    "nothing": "",
}
TOP_OGX = {
    "store that is not there": "storage: {stores: {metadata: {namespace: n, backend: kv_defualt}}}\n",
    "backend without its file": "storage: {backends: {kv_default: {type: kv_sqlite}}}\n",
    "backend of no kind": "storage: {backends: {kv_default: {type: kv_sqlight, db_path: x}}}\n",
    "model without a name": "registered_resources: {models: [{provider_id: one}]}\n",
    "tenancy": "server: {tenancy: {mode: single}}\n",
}


@pytest.mark.parametrize("name", [*TOP, *TOP_OGX])
def test_what_the_servers_own_parser_refuses_is_said_and_nothing_else(upstream, tmp_path, name):
    if name in TOP_OGX and upstream.name != "ogx":
        pytest.skip("this version has no such key")
    text = one(upstream, "tool_runtime", "remote::brave-search", "{}", (TOP | TOP_OGX)[name])
    refused = False
    try:
        with quietly():
            data = upstream.internals.replaced(yaml.safe_load(text))
            upstream.internals.file_class.model_validate(data)
    except ValidationError:
        refused = True
    lines = upstream.lines(tmp_path, text)
    assert bool(lines) is refused is (name not in {"right", "nothing"})
    assert all(line.startswith("stack.yaml:8:") for line in lines), lines


def test_all_stores_that_refer_to_nothing_are_said_each_with_a_suggestion(ogx, tmp_path):
    top = (
        "storage:\n  backends:\n    kv_default: {type: kv_sqlite, db_path: x}\n"
        "    sql_default: {type: sql_sqlite, db_path: y}\n  stores:\n"
        "    metadata: {namespace: n, backend: kv_defualt}\n"
        "    inference: {table_name: t, backend: sql_defualt}\n"
    )
    text = one(ogx, "tool_runtime", "remote::brave-search", "{}", top)
    lines = ogx.lines(tmp_path, text)
    assert [line.split(": storage.stores.")[1] for line in lines] == [
        "metadata.backend: `storage.backends` has no `kv_defualt`; did you mean `kv_default`?",
        "inference.backend: `storage.backends` has no `sql_defualt`; did you mean `sql_default`?",
    ]


def test_keys_of_other_versions_are_a_warning(upstream, tmp_path):
    key = "shields" if upstream.name == "ogx" else "storage"
    text = one(upstream, "tool_runtime", "remote::brave-search", "{}", f"{key}: {{}}\n")
    (line,) = upstream.lines(tmp_path, text)
    assert line.startswith("stack.yaml:8:1: warning: ")
    assert f"does not read `{key}`, and starts without it" in line


def test_misspelt_keys_below_the_top_are_said(upstream, tmp_path):
    text = one(upstream, "tool_runtime", "remote::brave-search", "{}", "server: {prot: 8400}\n")
    (line,) = upstream.lines(tmp_path, text)
    assert line == "stack.yaml:8:10: error: server.prot: unknown key; did you mean `port`?"


def test_variables_that_the_rest_of_the_file_needs_are_said(upstream, tmp_path):
    text = one(
        upstream, "tool_runtime", "remote::brave-search", "{}", "server: {host: '${env.OGX_T_HOST}'}\n"
    )
    (line,) = upstream.lines(tmp_path, text)
    assert "server.host: the environment variable `OGX_T_HOST` is not set" in line


def test_a_conditional_part_of_the_file_is_left_out_as_the_server_leaves_it_out(ogx, tmp_path):
    top = (
        "server:\n  auth:\n    provider_config:\n      type: ${env.OGX_T_AUTH:+oauth2_token}\n"
        "      jwks: {uri: '${env.OGX_T_URI}'}\n"
        "registered_resources:\n  models:\n"
        "  - {model_id: '${env.OGX_T_MODEL:+x}', provider_id: x, model_type: nonsense}\n"
    )
    assert ogx.lines(tmp_path, one(ogx, "tool_runtime", "remote::brave-search", "{}", top)) == []


# The grammar of references


def test_a_file_in_the_other_grammar_is_one_line_and_the_rest_is_judged(upstream, tmp_path):
    other = ":" if upstream.internals.grammar == "new" else ":="
    config = f"{{api_key: '${{env.OGX_T_A{other}}}', max_results: '${{env.OGX_T_B{other}many}}'}}"
    lines = upstream.lines(tmp_path, one(upstream, "tool_runtime", "remote::brave-search", config))
    assert len(lines) == 2
    assert "2 references to the environment in the form of" in lines[0]
    assert "max_results: should be a whole number, not 'many'" in lines[1]


def test_a_file_in_both_grammars_is_told_where_it_is_wrong(upstream, tmp_path):
    right, other = (":=", ":") if upstream.internals.grammar == "new" else (":", ":=")
    text = one(
        upstream,
        "tool_runtime",
        "remote::brave-search",
        f"{{api_key: '${{env.OGX_T_A{other}x}}', max_results: '${{env.OGX_T_B{right}3}}'}}",
        f"server: {{port: '${{env.OGX_T_C{other}8400}}'}}\n",
    )
    lines = upstream.lines(tmp_path, text)
    assert [line.split(":")[1] for line in lines] == ["7", "8", "8"]
    assert "this file is written in the other one" in lines[0]


# What comes from outside


def test_a_folder_of_external_providers(upstream, tmp_path):
    folder = tmp_path / "providers.d" / "inline" / "inference"
    folder.mkdir(parents=True)
    upper = upstream.config_class("tool_runtime/remote::brave-search")
    declared = {
        "module": "stackconf_ogx",
        "config_class": f"{upper.__module__}.{upper.__qualname__}",
        "pip_packages": [],
    }
    (folder / "acme.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    top = f"external_providers_dir: {tmp_path / 'providers.d'}\n"
    text = one(upstream, "inference", "inline::acme", "{max_result: 3}", top)
    (line,) = upstream.lines(tmp_path, text)
    assert line.endswith("config.max_result: unknown field; did you mean `max_results`?")


@pytest.mark.parametrize("used", [True, False])
def test_a_broken_file_in_it_is_one_line(upstream, tmp_path, used):
    folder = tmp_path / "providers.d" / "inline" / "inference"
    folder.mkdir(parents=True)
    (folder / "acme.yaml").write_text("[", encoding="utf-8")
    (folder / "other.yaml").write_text("pip_packages: []\n", encoding="utf-8")
    top = f"external_providers_dir: {tmp_path / 'providers.d'}\n"
    kind = "inline::acme" if used else "remote::openai"
    lines = upstream.lines(tmp_path, one(upstream, "inference", kind, "{}", top))
    assert len(lines) == 2
    assert all("acme.yaml" in line or "other.yaml" in line for line in lines)
    assert [line.split(":")[1] for line in lines] == (["6", "8"] if used else ["8", "8"])


def test_a_folder_that_is_not_there_is_one_line(upstream, tmp_path):
    top = f"external_providers_dir: {tmp_path / 'no'}\n"
    (line,) = upstream.lines(tmp_path, one(upstream, "inference", "remote::openai", "{}", top))
    assert line.startswith(
        f"stack.yaml:8:25: error: external_providers_dir: there is no folder {tmp_path}/no"
    )


def test_a_module_that_cannot_be_imported_is_said_of_its_provider(ogx, tmp_path):
    text = one(ogx, "inference", "remote::ramalama", "{}").replace(
        "    config:", "    module: ogx_t_ramalama==0.3\n    config:"
    )
    (line,) = ogx.lines(tmp_path, text)
    assert "its module `ogx_t_ramalama==0.3` cannot be imported: No module named 'ogx_t_ramalama'" in line
    assert line.startswith("stack.yaml:6:20: error: inference/one:")


def test_this_version_knows_no_modules(llama, tmp_path):
    text = one(llama, "inference", "remote::openai", "{}").replace(
        "    config:", "    module: x\n    config:"
    )
    (line,) = llama.lines(tmp_path, text)
    assert "providers.inference[0].module: unknown key" in line


def test_more_than_one_process_is_warned_of_when_it_serves(ogx, caplog):
    def hosted(workers: int) -> HostedTypes:
        file = loads(f"version: 2\ndistro_name: x\nserver: {{workers: {workers}}}\n", "x.yaml", {})
        return HostedTypes(ogx.internals, ogx.policies, file, UpstreamRuntime("ogx", None))

    hosted(1).server()
    assert caplog.messages == []
    hosted(4).server()
    assert caplog.messages == ["`server.workers` is 4, which counts for nothing here: one process serves"]
