"""Canaries: a secret goes in at every place where one can, and is searched for at every place where
something comes out: standard output and error of every command, every file, every byte of the
databases, everything that the SDK returns, raises or logs.

Every canary has a marker in it that no encoding but base64 changes, so that a part of a secret is
found too, and is searched for in base64 at each of its three alignments.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import time
import traceback
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import attrs
import click
import pytest
import yaml

from stackconf import Stack, StackconfError
from stackconf.cli.root import root
from stackconf.registry.metadata import DisabledPlugins
from stackconf.registry.registry import Registry
from stackconf.sealing import KEY_FILE_VARIABLE, new_key
from stackconf.testing import machine

pytestmark = pytest.mark.exhaustive

NASTY = "\"q' \\/+&=é%41  two\tspaces"
"""What JSON, URLs, reprs and the joining of lines write in another way."""


def canary(number: int, kind: str = "plain") -> str:
    """A secret of its own for each place."""
    marker = f"Cnry{number:03d}xK4T9wqZ"
    return {
        "plain": f"sk-proj-{marker}bN2vR8",
        "nasty": f"{NASTY}{marker}{NASTY}",
        "lines": f"-----BEGIN KEY-----\n{marker}MIIEvgIB\n{marker}ADANBgkq\n-----END KEY-----",
    }[kind]


PLACES = (
    "stack file, SecretStr",
    "stack file, name of a secret",
    "stack file, label",
    "stack file, SecretBytes",
    "stack file, URL password",
    "stack file, URL query",
    "stack file, DSN",
    "stack file, nested model",
    "stack file, list",
    "stack file, free mapping",
    "stack file, header",
    "stack file, argument",
    "stack file, dataclass",
    "stack file, mapping of models",
    "stack file, list of models",
    "stack file, extra key",
    "stack file, default of a reference",
    "environment, in the stack file",
    "environment, within a URL",
    "default_config",
    "default of the class",
    "overlay, literal",
    "overlay, literal in a list",
    "overlay, literal in a free mapping",
    "overlay, environment",
    "overlay, file",
    "failing register, wrong kind of value",
    "failing register, wrong field",
    "failing register, misspelt field",
    "failing register, not the user's",
    "failing register, URL password",
    "failing register, URL query",
    "failing register, unparsable",
    "failing register, no such provider",
    "failing register, mapping for a text",
    "unparsable stack file",
    "wrong stack file, secret of another type",
    "wrong stack file, key in a field for numbers",
    "wrong stack file, misspelt field",
    "key of the store",
    "second key of the store",
)
_NASTY = {
    "stack file, SecretStr",
    "environment, in the stack file",
    "overlay, literal",
    "overlay, literal in a free mapping",
    "overlay, environment",
    "default_config",
}
CANARIES = {
    place: canary(number, "nasty" if place in _NASTY else "lines" if place == "overlay, file" else "plain")
    for number, place in enumerate(PLACES)
} | {"key of the store": new_key(), "second key of the store": new_key()}
C = SimpleNamespace(**{f"n{number}": CANARIES[place] for number, place in enumerate(PLACES)})
VISIBLE = "visible-llama-0815"
"""No secret, under a name that looks a little like one: where this is not found, nothing was searched."""


def of(place: str) -> str:
    return CANARIES[place]


def core64(text: str) -> Iterator[str]:
    """The part of a text's base64 that does not depend on what stands around it, at each alignment."""
    data = text.encode()
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + data).decode().rstrip("=")
        yield encoded[4 if shift else 0 : -3]


def spellings(secret: str) -> set[str]:
    """Every way in which a secret, or its marker alone, might come out."""
    at = secret.find("Cnry")
    marker = secret[at : at + 15] if at >= 0 else secret[:20]
    found = {marker, secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    found |= {repr(secret)[1:-1], urllib.parse.quote(secret), urllib.parse.quote_plus(secret)}
    found |= {urllib.parse.quote(secret, safe=""), *core64(marker), *core64(secret)}
    found.add(marker.encode().hex())
    return {each for each in found if len(each) >= 8}


NEEDLES = {place: tuple(each.encode() for each in spellings(secret)) for place, secret in CANARIES.items()}
searches = {"canary x place": 0, "needle x place": 0}


def search(where: str, what: bytes | str | object) -> list[str]:
    """The canaries that are found somewhere."""
    data = what if isinstance(what, bytes) else str(what).encode("utf-8", "surrogateescape")
    searches["canary x place"] += len(NEEDLES)
    searches["needle x place"] += sum(map(len, NEEDLES.values()))
    return [
        f"{place}: {where}: …{context(data, needle)}…"
        for place, needles in NEEDLES.items()
        for needle in needles
        if needle in data
    ]


def context(data: bytes, needle: bytes) -> str:
    at = data.index(needle)
    return data[max(0, at - 100) : at + len(needle) + 30].decode("utf-8", "replace")


# The plugin


PLUGIN = '''
import base64, os, time, urllib.parse
from dataclasses import dataclass, field
from typing import Any
from pydantic import BaseModel, Field, SecretBytes, SecretStr
from stackconf import Applied, Issue, ProviderType, because, hookimpl, user_field

@dataclass
class Account:
    name: str = "me"
    password: str = ""

class Inner(BaseModel):
    host: str = user_field("localhost")
    passphrase: str | None = None
    pin: int | None = Field(None, json_schema_extra={"secret": True})

class Config(BaseModel, extra="allow"):
    mode: str = ""
    tokenizer: str = user_field("none")
    api_key: SecretStr | None = user_field(None)
    token: str | None = user_field(None)
    labelled: str | None = user_field(None, secret=True)
    blob: SecretBytes | None = None
    url: str = user_field("http://localhost")
    query: str = user_field("")
    dsn: str = user_field("")
    inner: Inner = Inner()
    api_keys: list[str] = user_field([])
    named: dict[str, str] = user_field({})
    free: dict[str, Any] = user_field({})
    arguments: list[str] = user_field([])
    account: Account = field(default_factory=Account)
    maps: dict[str, Inner] = user_field({})
    several: list[Inner] = user_field([])
    threads: int = user_field(1)
    from_reference: str = user_field("", secret=True)
    from_environment: str = user_field("", secret=True)
    derived_token: str = user_field("")
    class_token: str = "@CLASS@"
    over_literal: SecretStr | None = user_field(None)
    over_env: SecretStr | None = user_field(None)
    over_file: SecretStr | None = user_field(None)
    admin_password: str = ""

provides = (
    ProviderType("inference", "remote::acme", Config),
    ProviderType("safety", "remote::acme", Config),
)

class Loud(Exception):
    def __init__(self, config):
        self.config = config
        super().__init__(everything(config))
    def __repr__(self):
        return f"Loud({everything(self.config)})"

def texts(value):
    if isinstance(value, (SecretStr, SecretBytes)):
        yield from texts(value.get_secret_value())
    elif isinstance(value, bytes):
        yield value.decode()
    elif isinstance(value, BaseModel):
        for inner in {**value.__dict__, **(value.model_extra or {})}.values():
            yield from texts(inner)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, Account):
        yield value.password
    elif isinstance(value, str):
        yield value

def everything(config):
    """Every secret as it is, and in every other way in which a client library might print it."""
    said = []
    for text in texts(config):
        said += [text, repr(text), urllib.parse.quote(text), urllib.parse.quote_plus(text)]
        for name in ("a", "ab", "abc"):
            said.append("Basic " + base64.b64encode(f"{name}:{text}".encode()).decode())
    said += [repr(config), str(config), str(config.model_dump()), config.model_dump_json()]
    return " | ".join(said)

@hookimpl
def default_config(provider, hardware):
    return {"derived_token": because("""@DEFAULT@""", "made of it")}

@hookimpl
def validate_user_config(provider, user_config, config, hardware):
    if config.mode == "validate-raises":
        raise Loud(config)
    if config.mode == "validate-says":
        return [Issue(everything(config), path="token", hint=everything(config), level="warning")]
    return []

@hookimpl
def apply_config(provider, config, previous):
    def fail(*_):
        raise Loud(config)
    mode = getattr(config, "mode", "")
    if mode == "hang":
        open("hanging", "w").close()
        time.sleep(60)
    if mode == "raises":
        raise Loud(config)
    if mode == "cause":
        try:
            fail()
        except Loud as error:
            raise RuntimeError("refused: " + everything(config)) from error
    if mode == "group":
        raise ExceptionGroup(everything(config), [Loud(config), ValueError(everything(config))])
    if mode == "exits":
        raise SystemExit(everything(config))
    if mode == "check":
        return Applied(undo=lambda: None, check=lambda: everything(config))
    if mode == "check-raises":
        return Applied(undo=lambda: None, check=fail)
    if mode == "undo":
        return Applied(undo=fail, check=lambda: "no")
    if mode == "pending":
        return Applied(everything(config), pending="cannot reach " + everything(config))
    if config is None:
        return Applied("gone " + everything(previous), undo=lambda: None)
    return Applied(everything(config), undo=lambda: None, check=lambda: None)
'''

FAILING = ("raises", "cause", "group", "exits", "check", "check-raises", "undo", "pending")


def plugin_text() -> str:
    default = of("default_config").encode("unicode_escape").decode().replace('"', '\\"')
    return PLUGIN.replace("@CLASS@", of("default of the class")).replace("@DEFAULT@", default)


# The files


def stack_data(mode: str = "") -> dict[str, object]:
    config = {
        "mode": mode,
        "tokenizer": VISIBLE,
        "api_key": of("stack file, SecretStr"),
        "token": of("stack file, name of a secret"),
        "labelled": of("stack file, label"),
        "blob": of("stack file, SecretBytes"),
        "url": f"postgres://me:{of('stack file, URL password')}@host/db",
        "query": f"https://host/path?api_key={of('stack file, URL query')}&x=1",
        "dsn": f"host=db password={of('stack file, DSN')}",
        "inner": {"passphrase": of("stack file, nested model"), "pin": 47114711},
        "api_keys": [of("stack file, list")],
        "named": {"Authorization": f"Bearer {of('stack file, header')}"},
        "free": {"deep": [{"client_secret": of("stack file, free mapping")}]},
        "arguments": ["--token", of("stack file, argument")],
        "account": {"password": of("stack file, dataclass")},
        "maps": {"one": {"passphrase": of("stack file, mapping of models")}},
        "several": [{"passphrase": of("stack file, list of models")}],
        "extra_password": of("stack file, extra key"),
        "from_reference": f"${{env.NOT_SET:={of('stack file, default of a reference')}}}",
        "from_environment": "${env.CANARY_ENV}",
        "admin_password": "http://me:${env.CANARY_URL}@host",
    }
    entry = {"provider_id": "acme", "provider_type": "remote::acme", "config": config}
    calm = {"provider_id": "calm", "provider_type": "remote::acme", "config": {}}
    return {"version": 2, "providers": {"safety": [calm], "inference": [entry]}}


def overlay(provider: str = "acme", **config: object) -> str:
    return json.dumps({"inference": [{"provider_id": provider, "config": config}]})


def refused() -> dict[str, str]:
    """Configurations that cannot be registered, each with a secret at the wrong place."""
    return {
        "kind.json": overlay(over_literal=[of("failing register, wrong kind of value")]),
        "field.json": overlay(threads=of("failing register, wrong field")),
        "misspelt.json": overlay(api_kye=of("failing register, misspelt field"), threads="x"),
        "not-user.json": overlay(mode=of("failing register, not the user's")),
        "password.json": overlay(url=f"http://me:{of('failing register, URL password')}@host"),
        "query.json": overlay(query=f"http://h/?token={of('failing register, URL query')}"),
        "broken.yaml": f"inference: [{{api_key: {of('failing register, unparsable')}, : }}\n  - {{{{",
        "stranger.json": overlay("nobody", api_key=of("failing register, no such provider")),
        "mapping.json": overlay(token={"x": of("failing register, mapping for a text")}),
    }


def world(folder: Path, **stack: object) -> SimpleNamespace:
    """The site with its files, a home and a place for temporary files; and which files are inputs."""
    site = folder / "site"
    for each in (site, folder / "home", folder / "tmp"):
        each.mkdir()
    inputs = {
        "plugin.py": plugin_text(),
        "stack.yaml": yaml.safe_dump({**stack_data(), **stack}, sort_keys=False),
        "secret": of("overlay, file"),
        "key": f"{of('key of the store')}\n",
        "both-keys": f"{of('second key of the store')}\n{of('key of the store')}\n",
        "literal.json": overlay(
            over_literal=of("overlay, literal"),
            api_keys=[of("overlay, literal in a list")],
            free={"deep": {"client_secret": of("overlay, literal in a free mapping")}},
        ),
        "references.json": overlay(
            over_env="${env.CANARY_OVER}", over_file=f"${{file:{site / 'secret'}}}", threads=2
        ),
        "unparsable.yaml": f"providers:\n  inference:\n  - token: {of('unparsable stack file')}\n   bad: [",
        "wrong.yaml": yaml.safe_dump(wrong_data()),
        **{f"{mode}.yaml": yaml.safe_dump(stack_data(mode)) for mode in (*FAILING, "hang")},
        **{f"{mode}.yaml": yaml.safe_dump(stack_data(mode)) for mode in VALIDATING},
        **refused(),
    }
    for name, text in inputs.items():
        (site / name).write_text(text, encoding="utf-8")
        (site / name).chmod(0o600)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("STACKCONF_")},
        "HOME": str(folder / "home"),
        "XDG_CONFIG_HOME": str(folder / "home" / "xdg"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "STACKCONF_DISABLED_PLUGINS": "host,nvidia,amd,intel,apple",
        "STACKCONF_SECRET_KEY_FILE": "key",
        "CANARY_ENV": of("environment, in the stack file"),
        "CANARY_URL": of("environment, within a URL"),
        "CANARY_OVER": of("overlay, environment"),
    }
    return SimpleNamespace(
        folder=folder, site=site, environ=environ, inputs={site / name for name in inputs}, seen={}
    )


VALIDATING = ("validate-raises", "validate-says")


def wrong_data() -> dict[str, object]:
    config = {
        "inner": {"pin": of("wrong stack file, secret of another type")},
        "threads": of("wrong stack file, key in a field for numbers"),
        "inner2": 1,
        "several": [{"passhprase": of("wrong stack file, misspelt field")}],
        "api_keys": 3,
    }
    entry = {"provider_id": "acme", "provider_type": "remote::acme", "config": config}
    return {"version": 2, "providers": {"inference": [entry]}}


def files_found(here: SimpleNamespace) -> list[str]:
    """The canaries in any file that is no input: of the site, the home, the temporary folder."""
    found = []
    for file in sorted(here.folder.rglob("*")):
        if not file.is_file() or file in here.inputs or file.parent.name == "__pycache__":
            continue  # the last are inputs too, compiled
        with suppress(FileNotFoundError):  # a temporary one
            data = file.read_bytes()
            if here.seen.get(file) != data:  # in the last search it was another one, or not there
                found += search(f"file {file.relative_to(here.folder)}", data)
                found += search("name of a file", file.name)
            here.seen[file] = data
    return found


# The command line


REGISTER = ("configurations", "register")
SCENARIO: tuple[tuple[str, ...], ...] = (
    ("hardware",),
    ("providers", "list"),
    ("providers", "show", "inference/acme"),
    ("check", "stack.yaml", "unparsable.yaml", "wrong.yaml"),
    *(("check", f"{mode}.yaml") for mode in VALIDATING),
    *(("plan", "-s", f"{mode}.yaml") for mode in ("unparsable", "wrong", *VALIDATING)),
    *((*REGISTER, name) for name in refused()),
    (*REGISTER, "literal.json", "--name", "literal"),
    (*REGISTER, "references.json", "--name", "references"),
    (*REGISTER, "-", "--name", "again", "--no-assign"),
    ("configurations", "list"),
    ("configurations", "get", "literal"),
    ("configurations", "inspect"),
    ("inspect", "--all"),
    ("explain", "acme"),
    ("explain", "acme", "api_key"),
    ("secrets", "list"),
    ("status",),
    ("plan",),
    ("plan", "-o", "plan.json"),
    ("apply", "plan.json"),
    ("status",),
    ("drift",),
    ("export",),
    ("export", "--all"),
    ("export", "--applied"),
    ("export", "-o", "exported.yaml"),
    ("configurations", "unassign", "references"),
    ("configurations", "assign", "references"),
    ("configurations", "unassign", "literal"),
    ("apply",),
    *(("apply", "-s", f"{mode}.yaml") for mode in FAILING),
    ("apply", "-s", "undo.yaml", "--events"),
    ("status", "-s", "undo.yaml"),
    ("recover", "-s", "undo.yaml"),
    ("history",),
    ("show", "head"),
    ("diff", "1", "head"),
    ("diff", "1", "head", "--effective"),
    ("rollback", "2"),
    ("history", "prune", "--keep", "2"),
    ("store", "check"),
    ("store", "check", "-s", "pending.yaml"),
    ("store", "recover", "-s", "pending.yaml"),
    ("status", "-s", "pending.yaml"),
    ("inspect", "--applied", "-s", "pending.yaml"),
    ("configurations", "unregister", "literal"),
    ("secrets", "new-key", "-o", "made-key"),
    ("secrets", "rotate"),
    ("secrets", "drop"),
    ("plugins", "list"),
    ("plugins", "disable", "inference/remote::none"),
    ("plugins", "enable", "inference/remote::none"),
    ("serve", "-s", "unparsable.yaml"),  # one that serves is searched in tests/server
    ("completion", "bash"),
)
"""Every command at least once, in an order in which each has something to say. A new command has to
have its place here.
"""


def commands(command: click.Command, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that does something."""
    if not isinstance(command, click.Group):
        yield above
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        inner = command.get_command(context, name)
        assert inner is not None
        yield from commands(inner, (*above, name))


def test_every_command_has_its_place_in_the_scenario():
    missing = [
        " ".join(each) for each in commands(root) if each not in {run[: len(each)] for run in SCENARIO}
    ]
    assert missing == [], "add a call of it to SCENARIO, at a point where it has something to say"


def damage(database: Path) -> None:
    """Write over the middle of a file, as a failing disk does."""
    data = bytearray(database.read_bytes())
    data[4096:6000] = bytes(1904)
    database.write_bytes(data)


def run(here: SimpleNamespace, *args: str, stdin: str = "") -> subprocess.CompletedProcess[bytes]:
    environ = dict(here.environ)
    if args[:2] == ("store", "recover"):
        damage(here.site / ".stackconf" / "pending.yaml.sqlite3")
    if args[:2] == ("secrets", "rotate"):
        environ["STACKCONF_SECRET_KEY_FILE"] = "both-keys"
    return subprocess.run(
        [sys.executable, "-m", "stackconf", *args, "--plugin", "plugin.py"]
        if args[0] not in {"plugins", "completion"} and args[:2] != ("secrets", "new-key")
        else [sys.executable, "-m", "stackconf", *args],
        cwd=here.site,
        env=environ,
        input=stdin.encode(),
        capture_output=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("options", [("-v",), ("--json",)], ids=["people", "json"])
def test_no_command_lets_a_secret_out(tmp_path, options):
    here = world(tmp_path)
    found: list[str] = []
    said = b""
    codes = set()
    for args in SCENARIO:
        extra = () if "--events" in args else options
        stdin = (here.site / "literal.json").read_text() if "-" in args else ""
        done = run(here, *args, *extra, stdin=stdin)
        where = " ".join(("stackconf", *args, *extra))
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert done.returncode in {0, 1}, (where, done.stderr.decode())
        codes.add((args, done.returncode))
        found += search(f"{where}: standard output", done.stdout)
        found += search(f"{where}: standard error", done.stderr)
        found += [f"after {where}: {each}" for each in files_found(here)]
        said += done.stdout + done.stderr
    assert found == []
    # that the scenario did what it says: what fails fails, and the rest does not
    wrong = {args for args, code in codes if code == 1}
    assert {args for args in SCENARIO if args[:2] == REGISTER and args[2] in refused()} <= wrong
    assert ("apply", "-s", "raises.yaml") in wrong
    for fine in (
        ("apply", "plan.json"),
        ("apply",),
        ("secrets", "rotate"),
        ("plan",),
        ("drift",),
        ("export",),
        ("store", "recover", "-s", "pending.yaml"),
    ):
        assert fine not in wrong
    assert VISIBLE.encode() in said
    assert said.count(b"********") > 100
    report()


def test_an_apply_that_is_killed_leaves_no_secret_in_the_log_of_the_database(tmp_path):
    here = world(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "stackconf", "apply", "-s", "hang.yaml", "--plugin", "plugin.py"],
        cwd=here.site,
        env=here.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    until = time.monotonic() + 60
    while not (here.site / "hanging").exists() and time.monotonic() < until:
        time.sleep(0.02)
    names = {file.name for file in (here.site / ".stackconf").iterdir()}
    found = files_found(here)
    process.send_signal(signal.SIGKILL)
    out, err = process.communicate()
    assert {"hang.yaml.sqlite3", "hang.yaml.sqlite3-wal", "hang.yaml.sqlite3-shm"} <= names
    assert any("lock" in name for name in names)
    found += files_found(here) + search("standard output", out) + search("standard error", err)
    assert found == []
    report()


# The SDK


def shown_of(thing: object) -> Iterator[tuple[str, str]]:
    """What a person may see of an object, and of what is in it."""
    yield "repr", repr(thing)
    yield "str", str(thing)
    if attrs.has(type(thing)):
        for name in (field.name for field in attrs.fields(type(thing)) if field.repr):
            yield f"str of {name}", str(getattr(thing, name))


class Sdk:
    """The SDK at work in a world, and every canary that comes out of it."""

    def __init__(self, here: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here = here
        self.found: list[str] = []
        monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)
        for name in ("CANARY_ENV", "CANARY_URL", "CANARY_OVER", "TMPDIR", "HOME"):
            monkeypatch.setenv(name, here.environ[name])
        monkeypatch.chdir(here.site)

    def open(self, name: str) -> Stack:
        nothing = DisabledPlugins(Path("/nonexistent"))
        registry = Registry(files=["plugin.py"], entry_points=False, disabled=nothing)
        return Stack.open(name, registry=registry, hardware=machine())

    def look(self, where: str, *things: object) -> None:
        """Search what a person may see of these objects."""
        for thing in things:
            for how, text in shown_of(thing):
                self.found += search(f"{where}, {how} of {type(thing).__name__}", text)

    def look_at_files(self, *_: object) -> None:
        self.found += files_found(self.here)

    def fails(self, where: str, action: Callable[[], object]) -> None:
        """Do what must fail, and search what it raises."""
        with pytest.raises(StackconfError) as caught:
            action()
        self.look_at_error(where, caught.value)

    def look_at_error(self, where: str, error: BaseException) -> None:
        """Search an exception with all that led to it, as any logger prints it."""
        self.found += search(f"{where}: traceback", "".join(traceback.format_exception(error)))
        self.look(where, error, vars(error), *getattr(error, "issues", ()), getattr(error, "report", ""))


@pytest.fixture
def sdk(tmp_path, monkeypatch, caplog, capfd):
    """The SDK in a world whose stack file names the key. In the end there is nothing to be found."""
    caplog.set_level(logging.DEBUG)
    sdk = Sdk(world(tmp_path, stackconf={"secret_key_file": "key"}), monkeypatch)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield sdk
    sdk.look_at_files()
    captured = capfd.readouterr()
    sdk.found += search("log", caplog.text)
    sdk.found += search("warnings", [str(each) for each in warned])
    sdk.found += search("output", captured.out + captured.err)
    assert sdk.found == []
    report()


def test_nothing_that_the_sdk_gives_has_a_secret_in_it(sdk):
    with sdk.open("stack.yaml") as stack:
        literal = stack.configurations.register(Path("literal.json"), "literal")
        references = stack.configurations.register(Path("references.json"), "references")
        sdk.look("given", stack, stack.manager, stack.store, stack.secrets, stack.configurations)
        sdk.look("registered", literal, references)
        sdk.look("remembered", stack.history(), stack.show(), stack.diff(1), stack.diff(1, effective=True))
        sdk.look("planned", stack.plan(), *stack.plan().changes, stack.status(), stack.drift())
        progress: list[object] = []
        # what lies in the folder while an apply runs is searched at each of its steps
        report = stack.apply(observer=lambda step: (progress.append(step), sdk.look_at_files()))
        assert report.state == "applied"
        sdk.look("applied", report, *progress)
        assert (sdk.here.site / ".stackconf" / "stack.yaml.sqlite3-wal").exists()
        sdk.look_at_files()
        file = stack.file
        sdk.look("file", file, file.document, *file.providers, file.other, file.settings)
        resolution = stack.resolution
        acme = resolution.providers["inference/acme"]
        sdk.look("resolved", resolution, *resolution.providers.values(), stack.issues, *acme.overlays)
        sdk.look("effective", stack.effective(), stack.configurations.inspect())
        sdk.look("explained", *stack.explain("inference/acme"))
        sdk.look("listed", stack.configurations.list(), stack.configurations.get("literal"))
        store = stack.store
        sdk.look("stored", store.read(), store.applied(), store.attempts(), store.status(), store.view())
        sdk.look("sealed", *store.sealed().values(), stack.secrets.list(), stack.secrets.keys)
        sdk.look("sealed", stack.secrets.rotate(), stack.secrets.drop())
        stack.write_plan("plan.json")
        sdk.look("plan file", stack.read_plan("plan.json"))


def test_nothing_that_the_sdk_raises_has_a_secret_in_it(sdk):
    with sdk.open("stack.yaml") as stack:
        for name, text in refused().items():
            sdk.fails(f"register the text of {name}", lambda text=text: stack.configurations.register(text))
            sdk.fails(f"register {name}", lambda name=name: stack.configurations.register(Path(name)))
        stack.configurations.register(Path("references.json"))
        stack.write_plan("plan.json")
        Path("secret").write_text("another", encoding="utf-8")
        sdk.fails("stale", lambda: stack.apply(stack.read_plan("plan.json")))
        Path("secret").write_text(of("overlay, file"), encoding="utf-8")
        stack.configurations.register(Path("literal.json"))
        Path("key").chmod(0o644)
        sdk.fails("key open to others", stack.secrets.rotate)
        Path("key").write_text(f"{of('key of the store')}x\n", encoding="utf-8")
        Path("key").chmod(0o600)
        sdk.fails("key with a letter more", stack.secrets.rotate)
        sdk.fails("no key to apply with", stack.apply)
    sdk.fails("unparsable", lambda: sdk.open("unparsable.yaml"))


@pytest.mark.parametrize("mode", ["wrong", *VALIDATING, *FAILING])
def test_nothing_that_a_plugin_says_has_a_secret_in_it(sdk, mode):
    with sdk.open(f"{mode}.yaml") as stack:
        sdk.look("said", *stack.issues, stack.plan())
        if mode in {"validate-says", "pending"}:
            sdk.look("said", stack.apply())
        else:
            sdk.fails("said", stack.apply)
        sdk.look("kept", stack.store.attempts(), stack.store.status(), stack.status())


def report() -> None:
    """For whoever wants the figure: `pytest -s`."""
    sys.stdout.write(f"\nsearched so far: {searches}\n")


# The search itself


@pytest.mark.parametrize("place", PLACES)
def test_the_search_finds_a_canary_in_every_way_it_may_be_written(place):
    secret = of(place)
    ways = [
        secret,
        json.dumps({"x": secret}),
        repr(secret),
        urllib.parse.quote_plus(secret),
        base64.b64encode(f"user:{secret}".encode()).decode(),
        base64.b64encode(f"me:{secret}".encode()).decode(),
        base64.b64encode(f"x:{secret}".encode()).decode(),
        secret[:35] if "Cnry" in secret[:20] else secret[:-10],
    ]
    assert [way for way in ways if not any(each.startswith(place) for each in search("", way))] == []


def test_the_search_finds_nothing_where_nothing_is():
    assert search("", f"{VISIBLE} ******** sk-proj-") == []
