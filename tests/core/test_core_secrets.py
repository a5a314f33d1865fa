"""Canaries: a secret goes in by every door, and comes out by none."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from core_kit import Owner, effective, lines, one, open_stack, overlay
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from stackconf import Applied, InvalidConfig, StalePlan, user_field
from stackconf.redact import REDACTED, redact_free, redact_text
from stackconf.resolve.resolve import Overlay

CANARY = "canary4711"


@dataclass
class Account:
    name: str = "me"
    password: str = ""


class Inner(BaseModel):
    host: str = user_field("localhost")
    passphrase: str | None = None
    pin: int | None = Field(None, json_schema_extra={"secret": True})


class Vault(BaseModel, extra="allow"):
    """A secret in every kind of place."""

    api_key: SecretStr | None = user_field(None)
    blob: SecretBytes | None = None
    token: str | None = user_field(None)
    labelled: str | None = user_field(None, secret=True)
    url: str = user_field("http://localhost")
    query: str = user_field("")
    dsn: str = user_field("")
    inner: Inner = Inner()
    api_keys: list[str] = user_field([])
    named: dict[str, str] = user_field({})
    free: dict[str, Any] = user_field({})
    anything: Any = user_field(None)
    arguments: list[str] = user_field([])
    account: Account = field(default_factory=Account)
    whole: Inner | None = Field(None, json_schema_extra={"secret": True})
    maps: dict[str, Inner] = user_field({})
    several: list[Inner] = user_field([])


FULL = {
    "api_key": f"{CANARY}a",
    "blob": f"{CANARY}b",
    "token": f"{CANARY}c",
    "labelled": f"{CANARY}d",
    "url": f"postgres://me:{CANARY}e@host/db",
    "query": f"https://host/path?api_key={CANARY}f&x=1",
    "dsn": f"host=db password={CANARY}g",
    "inner": {"passphrase": f"{CANARY}h", "pin": 47114711},
    "api_keys": [f"{CANARY}i", f"{CANARY}j"],
    "named": {"Authorization": f"Bearer {CANARY}k", "x-api-key": f"{CANARY}l", "accept": "json"},
    "free": {"deep": {"client_secret": f"{CANARY}m"}, "list": [{"password": f"{CANARY}n"}]},
    "anything": {"credentials": {"who": f"{CANARY}o"}},
    "arguments": ["--token", f"{CANARY}p", "--verbose"],
    "account": {"password": f"{CANARY}q"},
    "whole": {"host": f"{CANARY}r"},
    "maps": {"one": {"passphrase": f"{CANARY}s"}},
    "several": [{"passphrase": f"{CANARY}t"}],
    "extra_password": f"{CANARY}u",
}


def files_of(folder) -> bytes:
    """Every byte that the stack left on disk, but for the stack file itself."""
    return b"".join(
        file.read_bytes() for file in folder.rglob("*") if file.is_file() and file.suffix != ".yaml"
    )


def is_clean(text: object) -> None:
    said = text if isinstance(text, str) else repr(text)
    assert CANARY not in said
    assert "47114711" not in said


def test_a_secret_of_the_stack_file_comes_out_nowhere(tmp_path):
    given = []
    owner = Owner(Vault, applying=lambda provider, config, previous: given.append(config) or Applied())
    with open_stack(tmp_path, one(FULL), owner) as stack:
        assert lines(stack.issues) == []
        is_clean(json.dumps(stack.configurations.inspect()))
        is_clean(json.dumps(stack.effective()))
        is_clean(stack.explain("acme"))
        plan = stack.plan()
        is_clean(plan)
        stack.write_plan(tmp_path / "plan.json")
        assert CANARY.encode() not in files_of(tmp_path)
        report = stack.apply(stack.read_plan(tmp_path / "plan.json"))
        is_clean(report)
        for thing in (
            stack.resolution,
            stack.resolution.providers,
            stack.store.applied(),
            stack.store.attempts(),
            stack.file,
            stack.file.document,
            stack.manager,
            stack.store.read(),
        ):
            is_clean(thing)
        assert CANARY.encode() not in files_of(tmp_path)
        assert b"47114711" not in files_of(tmp_path)
        config = given[0]
        assert config.api_key.get_secret_value() == f"{CANARY}a"  # the plugin has it
        assert config.named["x-api-key"] == f"{CANARY}l"
    changed = json.loads(json.dumps(FULL).replace(CANARY, "canary4712"))
    with open_stack(tmp_path, one(changed), owner) as stack:
        plan = stack.plan()
        text = repr(plan)
        assert "canary4712" not in text
        is_clean(text)
        assert len(plan.changes[0].fields) >= 14  # that it changed is told
        stack.write_plan(tmp_path / "plan.json")
        assert b"canary471" not in files_of(tmp_path)
    with open_stack(
        tmp_path, one(json.loads(json.dumps(FULL).replace(CANARY, "canary4713"))), owner
    ) as stack:
        with pytest.raises(StalePlan) as caught:
            stack.apply(stack.read_plan(tmp_path / "plan.json"))
        assert "canary471" not in str(caught.value)


def test_a_secret_of_the_environment_comes_out_nowhere(tmp_path):
    config = {"api_key": "${env.KEY}", "url": "http://me:${env.KEY}@host", "token": "${env.KEY:=x}"}
    with open_stack(tmp_path, one(config), Owner(Vault), environ={"KEY": CANARY}) as stack:
        assert effective(stack).api_key.get_secret_value() == CANARY
        told = stack.explain("acme", "api_key") + stack.explain("acme", "token")
        assert [each.value for each in told] == [REDACTED, REDACTED]
        assert [each.reason for each in told] == ["from ${env.KEY}", "from ${env.KEY:=...}"]
        stack.write_plan(tmp_path / "plan.json")
        for thing in (stack.explain("acme"), stack.plan(), stack.effective(), stack.file, stack.apply()):
            is_clean(thing)
        assert CANARY.encode() not in files_of(tmp_path)


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"api_key": CANARY}, "config.api_key"),
        ({"token": CANARY}, "config.token"),
        ({"labelled": CANARY}, "config.labelled"),
        ({"api_key": f"${{env.KEY:={CANARY}}}"}, "config.api_key"),
        ({"token": f"Bearer {CANARY}"}, "config.token"),
        ({"url": f"http://me:{CANARY}@host"}, "config.url"),
        ({"query": f"http://host?token={CANARY}"}, "config.query"),
        ({"dsn": f"host=x password={CANARY}"}, "config.dsn"),
        ({"api_keys": [CANARY]}, "config.api_keys"),
        ({"named": {"Authorization": CANARY}}, "config.named.Authorization"),
        ({"free": {"a": {"client_secret": CANARY}}}, "config.free.a.client_secret"),
        ({"free": {"a": [{"password": CANARY}]}}, "config.free.a[0].password"),
        ({"anything": {"credentials": {"x": CANARY}}}, "config.anything.credentials"),
        ({"maps": {"one": {"passphrase": CANARY}}}, "config.maps.one.passphrase"),
        ({"several": [{"passphrase": CANARY}]}, "config.several[0].passphrase"),
        ({"maps": {"one": {"pin": 47114711}}}, "config.maps.one.pin"),
    ],
)
def test_a_literal_secret_in_a_configuration_is_refused_with_a_hint(tmp_path, config, path):
    with open_stack(tmp_path, one(), Owner(Vault)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay(config))
        (issue,) = caught.value.issues
        assert issue.path == path
        assert "in the clear" in issue.message
        assert issue.hint
        is_clean(caught.value.issues)
        is_clean(str(caught.value))
        assert stack.revision == 0
        assert files_of(tmp_path) == b""


def test_a_reference_is_kept_as_one_and_resolved_where_it_is_applied(tmp_path, monkeypatch):
    monkeypatch.setenv("ACME_KEY", CANARY)
    file = tmp_path / "secret"
    file.write_text(f"{CANARY}-file\n")
    config = {
        "api_key": "${env.ACME_KEY}",
        "token": f"${{file:{file}}}",
        "api_keys": ["${env.ACME_KEY}"],
        "named": {"Authorization": "${env.ACME_KEY}"},
        "free": {"deep": [{"password": "${env.ACME_KEY}"}]},
        "several": [{"passphrase": "${env.ACME_KEY}"}],
        "maps": {"one": {"passphrase": "${env.ACME_KEY}"}},
    }
    with open_stack(tmp_path, one(), Owner(Vault)) as stack:
        registered = stack.configurations.register(overlay(config))
        assert registered.kept["inference"][0]["config"] == config
        now = effective(stack)
        assert now.api_key.get_secret_value() == CANARY
        assert now.token == f"{CANARY}-file"
        assert now.api_keys == [CANARY]
        assert now.named == {"Authorization": CANARY}
        assert now.free == {"deep": [{"password": CANARY}]}
        assert now.several[0].passphrase == now.maps["one"].passphrase == CANARY
        (told,) = stack.explain("acme", "api_key")
        assert (told.value, told.layer, told.reason) == (REDACTED, "overlay", "from ${env.ACME_KEY}")
        stack.write_plan(tmp_path / "plan.json")
        stack.apply()
        for thing in (registered, stack.resolution, stack.explain("acme"), stack.plan(), stack.effective()):
            is_clean(thing)
        file.unlink()
        assert CANARY.encode() not in files_of(tmp_path)


def test_a_reference_that_cannot_be_resolved_is_one_issue(tmp_path, monkeypatch):
    monkeypatch.delenv("ACME_KEY", raising=False)
    with open_stack(tmp_path, one(), Owner(Vault)) as stack:
        stack.configurations.register(
            overlay({"api_key": "${env.ACME_KEY}", "token": "${file:/nonexistent/key}"})
        )
        first, second = lines(stack.issues)
        assert "config.api_key: the environment variable `ACME_KEY` is not set" in first
        assert "given by configuration `default`" in first
        assert "config.token: the secret file /nonexistent/key cannot be read" in second
        with pytest.raises(InvalidConfig):
            stack.apply()


@pytest.mark.parametrize("text", ["${env.HOME}", "${file:/etc/shadow}", "http://${env.HOME}", "${env.X:=y}"])
def test_a_reference_in_a_field_that_is_shown_is_refused(tmp_path, text):
    with open_stack(tmp_path, one(), Owner(Vault)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay({"url": text}))
        assert "a reference is resolved only in a secret field" in str(caught.value.issues[0])


# What is sent back


def test_what_inspect_shows_can_be_sent_back_and_keeps_every_secret(tmp_path):
    with open_stack(tmp_path, one(FULL), Owner(Vault)) as stack:
        before = effective(stack).model_dump()
        shown = stack.configurations.inspect()
        registered = stack.configurations.register(shown)
        assert {issue.path for issue in registered.dropped} <= {"config.maps", "config.several"}
        assert effective(stack).model_dump() == before
        assert REDACTED not in json.dumps(dict(registered.kept))
        assert CANARY.encode() not in files_of(tmp_path)


def test_a_redacted_value_keeps_the_reference_that_the_configuration_had(tmp_path, monkeypatch):
    monkeypatch.setenv("ACME_KEY", CANARY)
    with open_stack(tmp_path, one(), Owner(Vault)) as stack:
        stack.configurations.register(
            overlay({"api_key": "${env.ACME_KEY}", "api_keys": ["${env.ACME_KEY}"], "url": "http://a"})
        )
        shown = stack.configurations.inspect()
        shown["providers"]["inference"][0]["config"]["url"] = "http://b"
        registered = stack.configurations.register(shown)
        kept = registered.kept["inference"][0]["config"]
        assert (kept["api_key"], kept["api_keys"], kept["url"]) == (
            "${env.ACME_KEY}",
            ["${env.ACME_KEY}"],
            "http://b",
        )
        assert effective(stack).api_key.get_secret_value() == CANARY


@pytest.mark.parametrize(
    "config",
    [
        {"api_key": REDACTED},
        {"url": f"http://me:{REDACTED}@elsewhere"},
        {"api_keys": [REDACTED, REDACTED, REDACTED]},
        {"named": {"x-api-key": REDACTED}},
    ],
)
def test_a_redacted_value_that_is_not_the_one_there_is_dropped_and_said(tmp_path, config):
    data = one({"url": f"http://me:{CANARY}@host", "api_keys": [CANARY]})
    with open_stack(tmp_path, data, Owner(Vault)) as stack:
        registered = stack.configurations.register(overlay({**config, "query": "x"}))
        (issue,) = registered.dropped
        assert "a redacted value" in issue.message
        assert effective(stack).url == f"http://me:{CANARY}@host"
        assert effective(stack).api_keys == [CANARY]
        assert REDACTED not in json.dumps(dict(registered.kept))


def test_objects_that_hold_configurations_do_not_print_them():
    is_clean(Overlay("name", 1, {"api_key": CANARY}))


def test_a_secret_typed_as_a_number_is_not_shown_and_the_hint_is_to_quote_it(tmp_path):
    text = """\
providers:
  inference:
  - provider_id: acme
    provider_type: remote::acme
    config:
      api_key: 0471147
      token: 815.10
"""
    with open_stack(tmp_path, text, Owner(Vault)) as stack:
        first, second = lines(stack.issues)
        for line, place in ((first, ":6:16: "), (second, ":7:14: ")):
            assert place in line
            assert "put it in quotes" in line
            assert "471147" not in line
            assert "815" not in line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://u:pa/ss@h/db", f"postgres://u:{REDACTED}@h/db"),
        ("redis://:only@h:6379/0", f"redis://:{REDACTED}@h:6379/0"),
        ("mongodb://a:b@h1,c:d@h2/x", f"mongodb://a:{REDACTED}@h2/x"),
        ("see http://a:b@h and http://c:d@h", f"see http://a:{REDACTED}@h and http://c:{REDACTED}@h"),
        ("http://localhost:4873/@scope/name", "http://localhost:4873/@scope/name"),
        ("https://host/?token=x&n=1", f"https://host/?token={REDACTED}&n=1"),
        ("Server=db;Password=x;Port=1", f"Server=db;Password={REDACTED};Port=1"),
        ("max_tokens=5", "max_tokens=5"),
        ("http://localhost:11434", "http://localhost:11434"),
    ],
)
def test_redacting_text(text, shown):
    assert redact_text(text) == shown


def test_redacting_what_no_class_describes():
    data = {
        "tokenizer": "t",
        "max_tokens": 5,
        "credentials": {"a": ["x", 1, None]},
        "args": ["--password", "x"],
    }
    assert redact_free(data) == {
        "tokenizer": "t",
        "max_tokens": 5,
        "credentials": {"a": [REDACTED, REDACTED, None]},
        "args": ["--password", REDACTED],
    }
