"""What is exported starts upstream's own server, and it is the same server as before."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from attrs import frozen
from hosting_kit import CHUNKS, FIELDS, Hosted, asked, backend, client_of
from ogx_kit import MACHINE, Upstream
from standin_ollama import wrong
from test_ogx_files import NOT_RIGHT, OWN
from upstream_kit import UpstreamServer, upstream_servers

from stackconf import Client, Issue, Registry, Stack
from stackconf_ogx.internals.base import quietly

if TYPE_CHECKING:
    from stackconf.export.export import Exported

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of upstream's classes
    pytest.mark.filterwarnings("ignore::UserWarning"),  # ogx-client warns of its own models,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # and closes no connection
]

CANARY = "tvly-canary4711"

LLAMA_STACK_FILE = """\
# Everything that a file of this version may have
version: '2'
image_name: exported
apis: [inference, tool_runtime]
stackconf: {runtime: llama-stack}     # upstream reads over it
external_providers_dir: FOLDER/providers.d
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config: {url: '${env.OGX_T_OLLAMA}'}   # the one that is used
  - provider_id: ${env.OGX_T_VLLM+vllm}
    provider_type: remote::vllm
    config: {url: '${env.OGX_T_VLLM:}'}
  - provider_id: __disabled__
    provider_type: remote::tgi
    config: {url: '${env.OGX_T_TGI:x}'}
  - provider_id: ''
    provider_type: remote::tgi
    config: {url: ''}
  tool_runtime:
  - provider_id: ${env.OGX_T_ON+tavily-search}
    provider_type: remote::tavily-search
    config:
      api_key: ${env.OGX_T_KEY}

      max_results: ${env.OGX_T_MAX:3}
  - provider_id: acme-search
    provider_type: remote::acme-search
    config: {api_key: '${env.OGX_T_NO_KEY:fake}'}
metadata_store:
  type: sqlite
  db_path: ${env.OGX_T_NOWHERE:./registry.db}
models:
- metadata: {}
  model_id: 'llama3.2:3b'
  provider_id: ollama
  model_type: llm
tool_groups:
- {toolgroup_id: 'builtin::websearch', provider_id: tavily-search}
server: {host: 127.0.0.1, port: 8321}
"""

OGX_FILE = """\
# Everything that a file of this version may have
version: 2
distro_name: exported
apis: [inference, tool_runtime]
stackconf: {runtime: ogx}     # upstream reads over it
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config: {base_url: '${env.OGX_T_OLLAMA}/v1'}   # the one that is used
  - provider_id: ${env.OGX_T_VLLM:+vllm}
    provider_type: remote::vllm
    config: {base_url: '${env.OGX_T_VLLM:=}'}
  - provider_id: __disabled__
    provider_type: remote::tgi
    config: {url: '${env.OGX_T_TGI}'}
  - provider_id: null
    provider_type: remote::vllm
    config: {}
  tool_runtime:
  - provider_id: ${env.OGX_T_ON:+tavily-search}
    provider_type: remote::tavily-search
    config:
      api_key: ${env.OGX_T_KEY}

      max_results: ${env.OGX_T_MAX:=3}
  - provider_id: acme-search
    provider_type: remote::acme-search
    module: ogx_t_acme
    config: {api_key: '${env.OGX_T_NO_KEY:=fake}'}
storage:
  backends:
    kv_default: {type: kv_sqlite, db_path: '${env.OGX_T_NOWHERE:=kv.db}'}
    sql_default: {type: sql_sqlite, db_path: sql.db}
  stores:
    metadata: {namespace: registry, backend: kv_default}
    inference: {table_name: inferences, backend: sql_default, max_write_queue_size: 100, num_writers: 1}
    conversations: {table_name: conversations, backend: sql_default}
    prompts: {table_name: prompts, backend: sql_default}
    connectors: {table_name: connectors, backend: sql_default}
registered_resources:
  models:
  - {model_id: '${env.OGX_T_VLLM:+none}', provider_id: vllm, model_type: llm}
  - {model_id: mine, provider_id: ollama, provider_model_id: 'llama3.2:3b', model_type: llm}
  tool_groups:
  - {toolgroup_id: 'builtin::websearch', provider_id: tavily-search}
server: {host: 127.0.0.1, port: 8321, insecure: true}
"""

FILES = {"llama-stack": LLAMA_STACK_FILE, "ogx": OGX_FILE}
PATHS = {
    "llama-stack": ("/v1/models", "/v1/inspect/routes", "/v1/toolgroups"),
    "ogx": ("/v1/models", "/v1/inspect/routes"),
}
"""What the servers tell of themselves, beside their providers."""

OFF = {"", "__disabled__"}
"""Ids of providers that are not made, and that llama-stack lists all the same."""

DECLARED = """\
adapter:
  adapter_type: acme-search
  module: llama_stack.providers.remote.tool_runtime.brave_search
  config_class: llama_stack.providers.remote.tool_runtime.brave_search.BraveSearchToolConfig
  pip_packages: []
api_dependencies: []
"""
MODULE = """\
from ogx_api.datatypes import Api, RemoteProviderSpec

def get_provider_spec():
    return RemoteProviderSpec(
        api=Api.tool_runtime,
        provider_type="remote::acme-search",
        adapter_type="acme-search",
        module="ogx.providers.remote.tool_runtime.brave_search",
        config_class="ogx.providers.remote.tool_runtime.brave_search.BraveSearchToolConfig",
        pip_packages=[],
    )
"""


@frozen
class Exports:
    """A stack file, its export, and its export with what was registered; upstream's server on the first
    and on the last.
    """

    file: str
    plain: str
    registered: str
    before: UpstreamServer
    after: UpstreamServer
    overlays: Sequence[Mapping[str, Any]]
    environ: Mapping[str, str]


@pytest.fixture(scope="module")
def running() -> Iterator[ExitStack]:
    """What is stopped after the last test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def started() -> dict[str, Exports]:
    """What was started so far, by runtime."""
    return {}


@pytest.fixture
def exports(upstream, running, started, tmp_path_factory, monkeypatch) -> Exports:
    """The servers of a runtime, started once."""
    name = upstream.name
    if name not in started:
        folder = tmp_path_factory.mktemp(name)
        site = with_an_external_type(folder)
        monkeypatch.syspath_prepend(site)
        first, second = (running.enter_context(backend(each)) for each in "AB")
        environ = {
            "OGX_T_OLLAMA": first,
            "OGX_T_KEY": CANARY,
            "OGX_T_ON": "yes",
            "PYTHONPATH": str(site),
        }
        for variable, value in environ.items():
            monkeypatch.setenv(variable, value)
        file = folder / "stack.yaml"
        file.write_text(FILES[name].replace("FOLDER", str(folder)), encoding="utf-8")
        address = second if name == "llama-stack" else f"{second}/v1"
        overlays = [
            one("inference", "ollama", **{FIELDS[name]: address}),
            one("tool_runtime", "tavily-search", max_results=7),
        ]
        text, plain = file.read_text(encoding="utf-8"), exported(file, name)
        registered = exported(file, name, *overlays)
        servers = upstream_servers(folder, name, {"before": text, "after": registered}, environ)
        started[name] = Exports(
            text, plain, registered, **running.enter_context(servers), overlays=overlays, environ=environ
        )
    return started[name]


def with_an_external_type(folder: Path) -> Path:
    """An external provider type in both of upstream's forms; the folder of the module that has one."""
    declared = folder / "providers.d" / "remote" / "tool_runtime" / "acme-search.yaml"
    declared.parent.mkdir(parents=True)
    declared.write_text(DECLARED, encoding="utf-8")
    package = folder / "site" / "ogx_t_acme"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "provider.py").write_text(MODULE, encoding="utf-8")
    return package.parent


def one(api: str, provider_id: str, **config: Any) -> dict[str, Any]:
    return {api: [{"provider_id": provider_id, "config": config}]}


def opened(file: Path, runtime: str) -> Stack:
    store = file.with_name("store.sqlite3")
    return Stack.open(file, store=store, registry=Registry(), hardware=MACHINE, runtime=runtime)


def exported(file: Path, runtime: str, *overlays: Mapping[str, Any]) -> str:
    """What `stackconf export` writes to another file."""
    with opened(file, runtime) as stack:
        assert of_this_machine(stack.issues), stack.issues
        for number, overlay in enumerate(overlays):
            stack.configurations.register(overlay, name=f"c{number}")
        text: str = stack.export().text
    return text


def wished_of(stack: Stack) -> dict[str, Any]:
    """Another value for every number that users may set and that can be judged here."""
    missing = {issue.provider for issue in stack.issues if issue.code == "missing-package"}
    wished: dict[str, Any] = {}
    for api, entries in stack.configurations.inspect()["providers"].items():
        for each in entries:
            values = {name: other_value(value) for name, value in each["config"].items()}
            config = {name: value for name, value in values.items() if value is not None}
            if config and f"{api}/{each['provider_id']}" not in missing:
                wished.setdefault(api, []).append({"provider_id": each["provider_id"], "config": config})
    return wished


def with_passwords(export: Exported, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of an export, with those variables set that stand for secrets of the file."""
    for variable in export.variables:
        default = re.search(rf"\$\{{env\.{variable.name}:=?([^}}]*)\}}", text)
        assert default, variable
        monkeypatch.setenv(variable.name, default[1])
    return export.text


def without_times(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a server tells, without when it heard of it."""
    return [{key: value for key, value in each.items() if key != "created"} for each in told]


def lines_changed(before: str, after: str) -> list[str]:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line[2:].strip() for line in lines if line.startswith("+ ")]


def test_nothing_of_the_file_is_changed_but_what_was_registered(exports):
    assert exports.plain == exports.file
    changed = lines_changed(exports.file, exports.registered)
    assert len(changed) == 2
    assert re.fullmatch(r"config: \{(base_)?url: '?http://127.0.0.1:\d+(/v1)?'?\} +# the one .*", changed[0])
    assert changed[1] == "max_results: 7"
    assert CANARY not in exports.registered


def test_the_export_starts_the_same_server_but_for_what_was_registered(exports, upstream):
    for path in PATHS[upstream.name]:
        told = without_times(exports.before.told(path)["data"])
        assert told, path
        assert without_times(exports.after.told(path)["data"]) == told, path
    before, after = (
        {each["provider_id"]: each for each in server.told("/v1/providers")["data"]}
        for server in (exports.before, exports.after)
    )
    assert list(before) == list(after)
    assert {"ollama", "tavily-search", "acme-search"} <= before.keys()
    assert "vllm" not in before
    assert {name for name in before if before[name] != after[name]} == {"ollama", "tavily-search"}
    for name, told in after.items():
        assert {**told, "config": before[name]["config"]} == before[name]
    results = before["tavily-search"]["config"]
    assert int(results["max_results"]) == 3
    assert after["tavily-search"]["config"] == {**results, "max_results": 7}


@pytest.mark.parametrize("streamed", [False, True])
def test_it_asks_the_backend_that_was_registered(exports, upstream, streamed):
    for name, server in {"A": exports.before, "B": exports.after}.items():
        with client_of(upstream.name, server.url)() as ask:
            text = ask("1x1", streamed)
        assert not wrong(text, "1x1", CHUNKS)
        assert text.startswith(f"{name}/")


def test_what_stackconf_serves_is_what_its_export_starts(exports, upstream, tmp_path):
    (tmp_path / "stack.yaml").write_text(exports.file, encoding="utf-8")
    hosted = Hosted(tmp_path, upstream.name, **exports.environ)
    try:
        for number, overlay in enumerate(exports.overlays):
            with Client(hosted.url) as client:
                client.configurations.register(overlay, name=f"c{number}")
        assert hosted.apply()["state"] == "applied"
        models, providers = (asked(f"{hosted.url}{path}")["data"] for path in ("/v1/models", "/v1/providers"))
        with Client(hosted.url) as client:
            texts = [client.export(applied=applied).text for applied in (False, True)]
    finally:
        hosted.end()
    assert texts == [exports.registered] * 2
    assert without_times(models) == without_times(exports.after.told("/v1/models")["data"])
    served = {each["provider_id"]: each["config"] for each in providers}
    for each in exports.after.told("/v1/providers")["data"]:
        if each["provider_id"] not in OFF:
            shown = served[each["provider_id"]]
            assert {name: str(shown[name]) for name in each["config"]} == {
                name: str(value) for name, value in each["config"].items()
            }


# Upstream's own files

SETTING = {
    "INFERENCE_MODEL": "meta-llama/Llama-3.1-8B-Instruct",
    "SAFETY_MODEL": "meta-llama/Llama-Guard-3-8B",
}


def setting_of(variable: str) -> str:
    """What an operator may have set: upstream's files need some of their variables."""
    if variable in SETTING:
        return SETTING[variable]
    return "http://upstream.example:80" if variable.endswith(("URL", "ENDPOINT")) else f"x-{variable.lower()}"


def other_value(value: Any) -> Any:
    """Another value of a field that users may set; `None` where none is surely right."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, (int, float)) else None


def of_this_machine(issues: Iterable[Issue]) -> bool:
    """Whether nothing is wrong but what is not installed here."""
    return all(each.code == "missing-package" for each in issues if each.level == "error")


def read_by_upstream(upstream: Upstream, text: str) -> Any:
    with quietly():
        return upstream.internals.file_class.model_validate(upstream.internals.replaced(yaml.safe_load(text)))


def read_with_classes(upstream: Upstream, text: str) -> dict[str, Any]:
    """The configs of a file's providers, as upstream hands them to who makes them."""
    found: dict[str, Any] = {}
    for api, providers in read_by_upstream(upstream, text).providers.items():
        for each in providers:
            if each.provider_id and each.provider_id != "__disabled__":
                with quietly():
                    read = upstream.config_class(f"{api}/{each.provider_type}")(**each.config)
                found[f"{api}/{each.provider_id}"] = read
    return found


def right_files(runtime: str) -> list[Path]:
    """The files that upstream ships, and that have no fault and no value that is special."""
    return [
        file
        for file in OWN[runtime]
        if "\nproviders:" in file.read_text(encoding="utf-8")
        and f"{file.parent.name}/{file.name}" not in NOT_RIGHT[runtime]
        and file.parent.name != "oci"  # which upstream refuses as long as nothing is set
    ]


def test_upstream_reads_the_exports_of_its_own_files_as_it_reads_them(upstream, tmp_path, monkeypatch):
    changed = 0
    files = right_files(upstream.name)
    for number, file in enumerate(files):
        text = file.read_text(encoding="utf-8")
        for variable in re.findall(r"\$\{env\.([A-Z0-9_]+)\}", text):
            monkeypatch.setenv(variable, setting_of(variable))
        copy = tmp_path / str(number) / "run.yaml"
        copy.parent.mkdir()
        copy.write_text(text, encoding="utf-8")
        with opened(copy, upstream.name) as stack:
            assert of_this_machine(stack.issues), (file, stack.issues)
            plain = with_passwords(stack.export(), text, monkeypatch)
            assert read_by_upstream(upstream, plain) == read_by_upstream(upstream, text), file
            wished = wished_of(stack)
            if wished:
                stack.configurations.register(wished)
            after = with_passwords(stack.export(), text, monkeypatch)
            providers = stack.resolution.providers
        expected = {key: each.config for key, each in providers.items()}
        assert read_with_classes(upstream, after) == expected, file
        changed += len(lines_changed(plain, after))
        rest = [read_by_upstream(upstream, each).model_dump(exclude={"providers"}) for each in (text, after)]
        assert rest[0] == rest[1], file
    assert len(files) >= 5
    assert changed > len(files)
