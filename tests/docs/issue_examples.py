"""For every issue code, a real mistake that gives it: how `docs/stack-files.md` gets its lines.

Run as a program, it writes the lines into the page anew.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docs_kit import DOCS, EXAMPLES
from pydantic import BaseModel, Field, create_model

from stackconf import (
    Applied,
    ApplyError,
    InvalidConfig,
    Issue,
    ProviderType,
    Stack,
    hookimpl,
    simulate,
    user_field,
)
from stackconf.registry.metadata import PROVIDERS, Advertised, marked
from stackconf.registry.registry import Registry
from stackconf.stack import default_store_path
from stackconf.stackfile import load as limits
from stackconf.stackfile import model
from stackconf.testing import machine, no_hardware

ACME = EXAMPLES / "provider" / "stackconf_acme.py"
EMPTY = "version: 2\nproviders: {}\n"

CASES: dict[str, Callable[[], Iterable[Issue]]] = {}
"""For each code, something that gives issues of which one has it."""


class Tiny(BaseModel):
    """A config class with a field that must be given."""

    model: str
    threads: int | None = user_field(None, ge=1, alias="num_threads")


class TinyPlugin:
    provides = (ProviderType("inference", "inline::tiny", Tiny),)

    @hookimpl
    def default_config(self, provider):
        if provider.provider_id == "broken":
            raise ValueError("no such card")


class Circle:
    """Two apis that depend on each other."""

    provides = (
        ProviderType("files", "inline::circle", Tiny, api_dependencies=("inference",)),
        ProviderType("inference", "inline::circle", Tiny, api_dependencies=("files",)),
    )


class Unwritable:
    def __str__(self) -> str:
        return "no plain data"


class Odd(BaseModel, arbitrary_types_allowed=True):
    """A class whose default cannot be written down, or is another one each time."""

    thing: Unwritable = Unwritable()
    serial: int = Field(default_factory=count().__next__)


class OddPlugin:
    provides = (
        ProviderType("inference", "inline::odd", create_model("OnlyOdd", __base__=Odd, serial=(int, 0))),
        ProviderType("inference", "inline::moody", Odd),
    )

    @hookimpl
    def apply_config(self, provider):
        if provider.provider_id == "stuck":
            return Applied(undo=lambda: 1 / 0, check=lambda: "it is ill")
        return Applied()


class Serving(BaseModel):
    memory: float = user_field(0.9, claims="accelerator_memory_fraction")


class ServingPlugin:
    provides = (ProviderType("inference", "inline::serving", Serving, accelerators=True),)


class TinySecond:
    provides = TinyPlugin.provides


class Installed(Registry):
    """A registry of an environment with these entry points, as `importlib.metadata` would list them."""

    def __init__(self, entries: Sequence[Advertised], disabled: Sequence[str] = (), **options: Any) -> None:
        super().__init__(entry_points=False, **options)
        self._advertised = marked(entries, disabled)
        for entry in self._advertised:
            self._advertised_types.setdefault(entry.name, []).append(entry)


def provider(config: str = "", *, type_: str = "remote::acme", api: str = "inference", id_: str = "a") -> str:
    """A stack file with one provider."""
    text = f"providers:\n  {api}:\n  - provider_id: {id_}\n    provider_type: {type_}\n"
    return text + (f"    config:\n      {config}\n" if config else "")


def issues_of(
    text: str | bytes, *, registry: Registry | None = None, environ=None, then=None, hardware=None
) -> list[Issue]:
    """Everything said of a stack file, and of what `then` does with the opened stack."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "stack.yaml")
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        registry = registry or Registry(
            files=[ACME], plugins=[TinyPlugin(), ServingPlugin()], entry_points=False
        )
        try:
            with Stack.open(
                file, registry=registry, hardware=hardware or machine(), environ=environ or {}
            ) as stack:
                issues = list(stack.issues)
                if then is not None:
                    issues += then(stack)
        except InvalidConfig as error:
            issues = list(error.issues)
    return [_renamed(issue, str(file)) for issue in issues]


def _renamed(issue: Issue, file: str) -> Issue:
    from attrs import evolve

    where = issue.where and evolve(issue.where, file=issue.where.file.replace(file, "stack.yaml"))
    message = issue.message.replace(file, "stack.yaml")
    return evolve(issue, where=where, message=message, hint=issue.hint.replace(file, "stack.yaml"))


def case(code: str, text: str | bytes, **options: Any) -> None:
    CASES[code] = lambda: issues_of(text, **options)


def register(config: dict[str, Any], **options: Any) -> Callable[[Stack], list[Issue]]:
    def then(stack: Stack) -> list[Issue]:
        registered = stack.configurations.register(config, **options)
        return [*registered.dropped, *registered.warnings]

    return then


def users(config: dict[str, Any], provider_id: str = "a") -> dict[str, Any]:
    return {"inference": [{"provider_id": provider_id, "config": config}]}


# The file

case("bad-encoding", b"version: 2\nname: caf\xe9\n")
case("bad-character", "version: 2\nname: a\x00b\n")
case("empty-file", "# nothing yet\n")
case("yaml-syntax", "version: 2\nimage_name: my: stack\n")
case("several-documents", "version: 2\nproviders: {}\n---\nversion: 3\n")
case("duplicate-key", "version: 2\nproviders: {}\nversion: 3\n")
case("key-not-text", "version: 2\nproviders: {}\n8321: port\n")
case("bad-value", "version: 2\nproviders: {}\nimage_name: 2024-13-45\n")
case("forbidden-tag", "version: 2\nproviders: !!python/object:os.system {}\n")
case("duplicate-anchor", "x-a: &one 1\nx-b: &one 2\nproviders: {}\n")
case("unknown-alias", "providers: *shared\n")
case("recursive-alias", "providers: &all\n  inference: *all\n")
case("bad-merge", "x-a: &one 1\nproviders:\n  <<: *one\n")
case("too-large", b"#" * (limits.MAX_BYTES + 1))
case("too-deep", "providers: " + "[" * 101 + "]" * 101 + "\n")
case("too-many-values", "providers: [" + "1," * limits.MAX_NODES + "]\n")
case("alias-bomb", "x-a: &a [" + "1," * 1001 + "]\nx-b: [" + "*a," * 101 + "]\nproviders: {}\n")
case("too-many-tags", "%TAG !a! tag:example.org,2024:\n" * (limits.MAX_TAG_DIRECTIVES + 1) + "--- {}\n")
case("too-many-issues", "providers:\n" + "".join(f"  a{n}: 1\n" for n in range(model.MAX_ISSUES + 1)))
case("build-file", "version: 2\ndistribution_spec: {}\n")
case("no-providers", "version: 2\n")
case("unknown-key", "version: 2\nprovidres: {}\n")
case("wrong-shape", "version: 2\nproviders:\n  inference:\n    provider_id: a\n    provider_type: b\n")
case("no-value", "version: 2\nproviders:\n  inference:\n")
case("old-form", "routing_table:\n  inference:\n  - provider_type: remote::acme\n    routing_key: any\n")
case("unknown-setting", EMPTY + "stackconf: {seal: true}\n")
case("bad-setting", EMPTY + "stackconf: {unknown_types: ignore}\n")
case("bad-policy", EMPTY + "stackconf: {policy: [base_url]}\n")
case("bad-placement", provider() + "stackconf:\n  placement:\n    inference/b: {cards: [0]}\n")

# Providers

case("missing-key", "providers:\n  inference:\n  - provider_id: a\n")
case("bad-id", provider(id_='"a\\nb"'))
case("duplicate-provider", provider() + "  - provider_id: a\n    provider_type: remote::acme\n")
case("unknown-type", provider(type_="remote::ollama"))
case("unknown-api", provider(api="inferense"))
SERVING = provider(type_="inline::serving") + "  - provider_id: b\n    provider_type: inline::serving\n"
case(
    "no-share",
    SERVING + "stackconf: {placement: {inference/a: {memory: 0.92}}}\n",
    hardware=simulate("l4"),
)
TAKING = "  - {provider_id: b, provider_type: inline::serving, config: {memory: 0.7}}\n"
case("over-claimed", provider("memory: 0.6", type_="inline::serving") + TAKING, hardware=simulate("l4"))
ENTRY = Advertised(PROVIDERS, "inference/remote::acme", str(ACME), "stackconf-acme", "0.1.0")
OTHER = Advertised(PROVIDERS, "inference/remote::acme", "acme_fork", "acme-fork", "2.0")
case("disabled-plugin", provider(), registry=Installed([ENTRY], ["stackconf-acme"]))
case("contested-type", provider(), registry=Installed([ENTRY, OTHER]))
case("plugin-load-error", provider(), registry=Installed([OTHER]))
case("hook-error", provider("model: m", type_="inline::tiny", id_="broken"))
case(
    "dependency-cycle",
    "providers:\n  inference: [{provider_id: a, provider_type: 'inline::circle', config: {model: m}}]\n"
    "  files: [{provider_id: b, provider_type: 'inline::circle', config: {model: m}}]\n",
    registry=Registry(plugins=[Circle()], entry_points=False),
    then=lambda stack: list(stack.plan().issues),
)

# References

case("env-missing", provider("url: ${env.ACME_URL}"))
case("env-lowercase", provider("url: ${env.acme_url}"))
case("env-unclosed", provider('url: "${env.ACME_URL"'))
case("env-nested", provider("url: ${env.ACME_URL:=http://${env.HOST}}"))
case("env-malformed", provider("url: $env.ACME_URL"))
case("env-grammar", provider("url: ${env.ACME_URL:=x}\n      model_dir: ${env.A:=a}${env.MODELS:models}"))
case("env-bash-default", provider("url: ${env.ACME_URL:-http://a}\n      model_dir: ${env.MODELS:models}"))
case("env-lookalike", provider("url: $ACME_URL"))

# Fields

case("unknown-field", provider("urll: http://127.0.0.1:7860"))
case("wrong-value", provider("threads: 0"))
case("missing-field", provider(type_="inline::tiny"))
case(
    "unknown-backend",
    provider("store: {backend: kv_defualt, namespace: a}") + "storage: {backends: {kv_default: {}}}\n",
)

# Configurations

case("not-user-field", provider(), then=register(users({"threads": 2, "model_dir": "/"})))
case("redacted", provider(), then=register(users({"threads": 2, "api_key": "********"})))
case("ignored-key", provider(), then=register({"version": 2, "providers": users({"threads": 2})}))
case("not-registrable", provider(), then=register(users({"api_key": "sk-1234"})))
case("nothing-kept", provider(), then=register(users({"model_dir": "/"})))
case("missing-secret", provider(), then=register(users({"api_key": "${env.ACME_KEY}"})))
case(
    "given-twice",
    provider("model: m", type_="inline::tiny"),
    then=register(users({"threads": 2, "num_threads": 3})),
)


def _missing_file() -> list[Issue]:
    try:
        Stack.open("stack.yaml.gone")
    except InvalidConfig as error:
        return list(error.issues)
    raise AssertionError


def _left_behind() -> list[Issue]:
    with TemporaryDirectory() as folder:
        file = Path(folder, "stack.yaml")
        for text in (provider(), EMPTY):
            file.write_text(text, encoding="utf-8")
            registry = Registry(files=[ACME], entry_points=False)
            with Stack.open(file, registry=registry, hardware=no_hardware(), environ={}) as stack:
                if text != EMPTY:
                    stack.configurations.register(users({"threads": 2}))
                issues = list(stack.issues)
    return issues


def _changed_by_hand() -> list[Issue]:
    with TemporaryDirectory() as folder:
        file = Path(folder, "stack.yaml")
        file.write_text(provider(), encoding="utf-8")
        registry = Registry(files=[ACME], entry_points=False)
        with Stack.open(file, registry=registry, hardware=no_hardware(), environ={}) as stack:
            stack.configurations.register(users({"threads": 2}))
            with closing(sqlite3.connect(default_store_path(file))) as db:
                db.execute("DROP TRIGGER document_is_immutable")
                db.execute("UPDATE document SET body = 'threads: 3'")
                db.commit()
            return list(stack.issues)


def _sealed_later() -> list[Issue]:
    with TemporaryDirectory() as folder:
        file = Path(folder, "stack.yaml")
        for text in (provider(), provider() + "stackconf: {sealed: true}\n"):
            file.write_text(text, encoding="utf-8")
            registry = Registry(files=[ACME], entry_points=False)
            with Stack.open(file, registry=registry, hardware=no_hardware(), environ={}) as stack:
                if not stack.file.sealed:
                    stack.configurations.register(users({"threads": 2}))
                issues = [_renamed(issue, str(file)) for issue in stack.issues]
    return issues


case(
    "stack-invalid",
    provider() + "  - provider_id: b\n    provider_type: remote::acme\n    config: {urll: x}\n",
    then=register(users({"threads": 2})),
)
CASES["unreadable-file"] = _missing_file
# Exports


def _exported(*texts: str, environs: Sequence[dict[str, str]] = ({}, {})) -> Callable[[], list[Issue]]:
    """What is said of an export of what was applied with the first text, under the last."""

    def issues() -> list[Issue]:
        with TemporaryDirectory() as folder:
            file = Path(folder, "stack.yaml")
            for text, environ in zip(texts, environs, strict=False):
                file.write_text(text, encoding="utf-8")
                registry = Registry(plugins=[OddPlugin()], files=[ACME], entry_points=False)
                with Stack.open(file, registry=registry, hardware=machine(), environ=environ) as stack:
                    if text is texts[-1]:
                        return [_renamed(issue, str(file)) for issue in stack.export(applied=True).issues]
                    with suppress(ApplyError):
                        stack.apply()
        raise AssertionError

    return issues


ODD = Registry(plugins=[OddPlugin()], entry_points=False)
case(
    "literal-secret",
    provider("api_key: sk-1234"),
    then=lambda stack: list(stack.export(in_place=True).issues),
)
case(
    "class-defaults",
    provider(type_="inline::odd"),
    registry=ODD,
    then=lambda stack: list(stack.export(class_defaults=True).issues),
)
case(
    "unfaithful-export",
    provider(type_="inline::moody"),
    registry=ODD,
    then=lambda stack: list(stack.export().issues),
)
SAME = provider(type_="inline::odd")
CASES["not-exported"] = _exported(SAME, SAME + "  - {provider_id: b, provider_type: 'inline::odd'}\n")
CASES["unknown-state"] = _exported(
    SAME + "  - {provider_id: stuck, provider_type: 'inline::odd'}\n",
    SAME + "  - {provider_id: stuck, provider_type: 'inline::odd'}  #\n",
)
CASES["kept-reference"] = _exported(
    provider("serial: ${env.SERIAL}", type_="inline::odd"),
    provider("serial: ${env.SERIAL}  #", type_="inline::odd"),
    environs=({"SERIAL": "1"}, {"SERIAL": "2"}),
)
CASES["no-provider"] = _left_behind
CASES["sealed-stack"] = _sealed_later
CASES["damaged-configuration"] = _changed_by_hand


def line_of(code: str) -> str:
    """The first line that the mistake of a code gives with that code."""
    found = [str(issue) for issue in CASES[code]() if issue.code == code]
    assert found, f"{code}: {[str(issue) for issue in CASES[code]()]}"
    return found[0]


def rewritten(text: str) -> str:
    """The page with every line as it is now."""
    return re.sub(
        r"^(\*\*`([a-z-]+)`\*\* [^\n]+\n\n```text\n)[^\n]+\n",
        lambda match: f"{match[1]}{line_of(match[2])}\n",
        text,
        flags=re.MULTILINE,
    )


if __name__ == "__main__":
    PAGE = DOCS / "stack-files.md"
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
