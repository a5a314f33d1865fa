"""Configurations that are wrong: refused in every form, with one line for each mistake, and no change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from bad_files import STACK
from bad_kit import overlay, tree

from stackconf import Stack
from stackconf.errors import InvalidConfig
from stackconf.testing import machine

OLLAMA, SEARCH = "inference/ollama", "tool_runtime/brave-search"
GIVEN = "given by configuration `default`"
SHAPE = "write `{api: [{provider_id: …, config: {…}}]}`"
USERS = "users may set `url`, `model`, `num_ctx`, `num_thread`, `num_batch`, `num_gpu`, `keep_alive`"
OLLAMA_CTX = "error: inference/ollama: config.num_ctx:"
NOTHING = "error: nothing to register: it sets no user field of the stack"


def entry(**keys: Any) -> dict[str, Any]:
    return {"inference": [{"provider_id": "ollama", **keys}]}


def ollama(**config: Any) -> dict[str, Any]:
    return overlay(OLLAMA, config)


CASES: dict[str, tuple[Any, list[str]]] = {
    "a provider that is not in the stack": (
        overlay("inference/olama", {"url": "http://x:1"}),
        ["error: inference/olama: no such provider in the stack; did you mean `inference/ollama`?"],
    ),
    "an api that is not in the stack": (
        overlay("inferense/ollama", {"url": "http://x:1"}),
        ["error: inferense/ollama: no provider of api `inferense` in the stack; did you mean `inference`?"],
    ),
    "another type": (
        entry(provider_type="remote::vllm", config={"url": "http://x:1"}),
        [
            (
                "error: inference/ollama: the stack's `inference/ollama` is `remote::ollama`, "
                "not `remote::vllm`; "
                "a configuration cannot change a provider's type"
            )
        ],
    ),
    "only what a user may not set": (
        ollama(load_timeout=3),
        [NOTHING, f"ignored: inference/ollama: config.load_timeout: dropped: not a user field; {USERS}"],
    ),
    "only a misspelt field": (
        ollama(urll="http://x:1"),
        [NOTHING, "ignored: inference/ollama: config.urll: dropped: unknown field; did you mean `url`?"],
    ),
    "a wrong type": (
        ollama(num_ctx="many"),
        [f"error: inference/ollama: config.num_ctx: should be a whole number, not 'many'; {GIVEN}"],
    ),
    "out of bounds": (
        ollama(num_ctx=1),
        [f"error: inference/ollama: config.num_ctx: should be greater than or equal to 256, not 1; {GIVEN}"],
    ),
    "a null": (
        ollama(url=None),
        [f"error: inference/ollama: config.url: should be text, not null; {GIVEN}"],
    ),
    "a bad URL": (
        ollama(url="localhost"),
        [
            (
                "error: inference/ollama: config.url: not an http:// or https:// address; "
                f"write it like http://localhost:11434; {GIVEN}"
            )
        ],
    ),
    "none of the choices": (
        overlay("telemetry/meta-reference", {"sinks": ["console", "sqlit"]}),
        [
            (
                "error: telemetry/meta-reference: config.sinks[1]: should be 'console', 'sqlite', "
                f"'otel_trace' or 'otel_metric', not 'sqlit'; {GIVEN}; did you mean `sqlite`?"
            )
        ],
    ),
    "a reference where there is no secret": (
        ollama(url="${env.OLLAMA_URL:=http://x}"),
        [
            (
                "error: inference/ollama: config.url: "
                "a reference is resolved only in a secret field; give the value"
            )
        ],
    ),
    "one right, one wrong": (
        {**ollama(num_gpu=1), **overlay(SEARCH, {"max_results": 99})},
        [
            (
                "error: tool_runtime/brave-search: config.max_results: should be less than or equal to 20, "
                f"not 99; {GIVEN}"
            )
        ],
    ),
    "two wrong": (
        {**ollama(num_ctx=1), **overlay(SEARCH, {"max_results": 99})},
        [
            f"{OLLAMA_CTX} should be greater than or equal to 256, not 1; {GIVEN}",
            (
                "error: tool_runtime/brave-search: config.max_results: should be less than or equal to 20, "
                f"not 99; {GIVEN}"
            ),
        ],
    ),
    "twice the same provider": (
        {"inference": [*ollama(num_gpu=1)["inference"], *ollama(num_gpu=2)["inference"]]},
        ["error: inference[1]: `inference/ollama` is given twice; give each provider once"],
    ),
    "nothing": ({}, [NOTHING]),
    "no setting": (entry(), [NOTHING]),
    "a list": (["a"], [f"error: a configuration is a mapping of apis, not a list; {SHAPE}"]),
    "text": ("hello", [f"error: a configuration is a mapping of apis, not text; {SHAPE}"]),
    "providers that are a list": (
        {"providers": []},
        [f"error: providers: `providers` is a mapping of apis, not a list; {SHAPE}"],
    ),
    "an api that is a mapping": (
        {"inference": {"provider_id": "ollama"}},
        [f"error: inference: `inference` is a list of providers, not a mapping; {SHAPE}"],
    ),
    "a provider that is text": (
        {"inference": ["ollama"]},
        ["error: inference[0]: a provider is a mapping, not text; write `provider_id: …`"],
    ),
    "a provider without id": (
        {"inference": [{"config": {"num_gpu": 1}}]},
        ["error: inference[0]: a provider has no `provider_id`; say which provider is meant"],
    ),
    "an id that is a number": (
        {"inference": [{"provider_id": 3}]},
        ["error: inference[0].provider_id: `provider_id` is one line of text, not `3`; put it in quotes"],
    ),
    "an unknown key": (
        entry(cfg={"num_gpu": 1}),
        ["error: inference[0].cfg: unknown key `cfg`; a provider has provider_id, provider_type, config"],
    ),
    "a config that is a list": (
        entry(config=[1]),
        ["error: inference[0].config: `config` is a mapping of fields, not a list; write `name: value`"],
    ),
}


def as_mapping(data: Any, _folder: Path) -> Any:
    return data


def as_json(data: Any, _folder: Path) -> Any:
    return json.dumps(data)


def as_yaml(data: Any, _folder: Path) -> Any:
    return yaml.safe_dump(data, sort_keys=False)


def as_a_file(data: Any, folder: Path) -> Any:
    file = folder / "overlay.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return file


FORMS: tuple[Callable[[Any, Path], Any], ...] = (as_mapping, as_json, as_yaml, as_a_file)


@pytest.fixture
def stack(here):
    (here / "stack.yaml").write_text(STACK, encoding="utf-8")
    with Stack.open("stack.yaml", hardware=machine(), environ={}) as opened:
        opened.configurations.register(ollama(url="http://before:1"), name="before")
        yield opened


def said_of(error: InvalidConfig, form: Callable[..., Any]) -> list[str]:
    """The lines of an error without their places, which every form of text has."""
    lines = []
    for issue in error.issues:
        placed = issue.where is not None
        assert placed == (form is not as_mapping) or issue.code == "nothing-kept", issue
        lines.append(str(issue).removeprefix(f"{issue.where}: "))
    return lines


IN_FORMS = [
    pytest.param(name, form, id=f"{name}-{form.__name__}")
    for name, (data, _) in CASES.items()
    for form in FORMS
    if isinstance(data, dict) or form is not as_mapping
]


@pytest.mark.parametrize(("name", "form"), IN_FORMS)
def test_it_is_refused_and_nothing_changes(stack, here, name, form):
    data, lines = CASES[name]
    given = form(data, here)
    before = (stack.revision, stack.configurations.list(), stack.configurations.inspect(), tree(here))
    with pytest.raises(InvalidConfig) as refused:
        stack.configurations.register(given)
    assert said_of(refused.value, form) == lines
    assert before == (stack.revision, stack.configurations.list(), stack.configurations.inspect(), tree(here))


def deep() -> dict[str, Any]:
    data: dict[str, Any] = {}
    here = data
    for _ in range(5000):
        here["num_ctx"] = here = {}
    return data


def endless() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["num_ctx"] = data
    return data


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (ollama(**deep()), "error: nested more than 100 levels deep"),
        (ollama(**endless()), "error: nested more than 100 levels deep"),
        (
            ollama(num_ctx=10**5000),
            "error: inference[0].config.num_ctx: this is too large a number; put it in quotes if it is text",
        ),
        (
            ollama(url=object()),
            (
                "error: inference[0].config.url: this is an object of type object, which is no plain data; "
                "put it in quotes if it is text"
            ),
        ),
        (
            ollama(url=b"http://x"),
            (
                "error: inference[0].config.url: this is an object of type bytes, which is no plain data; "
                "put it in quotes if it is text"
            ),
        ),
        (
            {"inference": [{"provider_id": "ollama", "config": {1: 2}}]},
            "error: inference[0].config: a key is `1`, not text; give it a name of one line",
        ),
        (
            ollama(**{"two\nlines": 1}),
            "error: inference[0].config: a key is more than one line; give it a name of one line",
        ),
        (None, "error: a configuration is a mapping, a text or a path, not NoneType"),
        (3, "error: a configuration is a mapping, a text or a path, not int"),
        (
            "inference:\n- provider_id: ollama\n  config: {model: 2024-01-31}\n",
            (
                "<default>:3:19: error: inference[0].config.model: this is a date, which is no plain data; "
                "put it in quotes if it is text"
            ),
        ),
        (
            '{"inference": [',
            (
                "<default>:2:1: error: not valid YAML: did not find expected node content; "
                "a value or a bracket is missing"
            ),
        ),
        (
            '{"inference": [{"provider_id": "ollama", "config": {"num_gpu": 1, "num_gpu": 2}}]}',
            (
                "<default>:1:67: error: inference[0].config.num_gpu: the key `num_gpu` stands here twice; "
                "the first is at <default>:1:53; remove one of the two"
            ),
        ),
        (b"inference: \xe9", "<default>:1:12: error: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (Path("nowhere.yaml"), "error: there is no file `nowhere.yaml`; check the path"),
        ("nowhere.json", "error: there is no file `nowhere.json`; check the path"),
        (Path(), "error: `.` is a folder; give the path of the stack file in it"),
    ],
)
def test_what_is_no_configuration_at_all(stack, given, line):
    before = stack.revision
    with pytest.raises(InvalidConfig) as refused:
        stack.configurations.register(given)
    assert [str(issue) for issue in refused.value.issues] == [line]
    assert stack.revision == before


def test_a_long_text_in_one_line_is_no_path(stack):
    text = f"inference: [{{provider_id: ollama, config: {{model: {'m' * 400}}}}}]"
    stack.configurations.register(text)
    assert stack.configurations.inspect()["providers"]["inference"][0]["config"]["model"] == "m" * 400


def test_the_command_reads_standard_input_and_says_where(cli, here):
    (here / "stack.yaml").write_text(STACK, encoding="utf-8")
    text = "inference:\n- provider_id: ollama\n  config:\n    num_ctx: many\n    urll: x\n    model: m\n"
    ran = cli("configurations", "register", "-", stdin=text)
    assert ran.code == 1
    assert ran.err.splitlines() == [
        "error: the configuration was not registered",
        f"<default>:4:5: {OLLAMA_CTX} should be a whole number, not 'many'; {GIVEN}",
        "<default>:5:5: ignored: inference/ollama: config.urll: dropped: unknown field; did you mean `url`?",
    ]
    assert cli("configurations", "list", "--json").data == {"revision": 0, "configurations": []}
