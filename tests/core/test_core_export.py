"""Export: the configuration written back as a stack file that says the same all by itself."""

from __future__ import annotations

import difflib
import sqlite3
from typing import Any, Literal

import pytest
import yaml
from core_kit import MACHINE, Owner, one, one_entry, open_stack, overlay, registry_of
from core_models import config_and_data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from stackconf import InvalidConfig, Stack, StackconfError, because, user_field
from stackconf.plan import snapshot
from stackconf.sealing import new_key

CANARY = "canary4711"


class Inner(BaseModel):
    host: str = user_field("localhost")
    port: int = user_field(80)
    password: str | None = user_field(None)


class Small(BaseModel):
    kind: Literal["small"] = "small"
    size: int = 1


class Large(BaseModel):
    kind: Literal["large"] = "large"
    room: str = "hall"


class Config(BaseModel):
    url: str = user_field("http://class")
    threads: int = user_field(1)
    api_key: SecretStr | None = user_field(None)
    text: str | None = user_field("plain")
    tags: list[str] = user_field([])
    api_keys: list[str] = user_field([])
    inner: Inner = user_field(Inner())
    named: dict[str, Any] = user_field({})
    free: Any = user_field(None)
    box: Small | Large = user_field(Small(), discriminator="kind")
    aliased: int = user_field(0, validation_alias="aliasedName")
    hidden: str = "class"


FILE = """\
# The stack of the house
version: '2'
image_name: "mine"     # in double quotes
apis: [inference, safety]
providers:
  inference:
  # the main one
  - provider_id:   acme
    provider_type: remote::acme
    config:
      url: ${env.ACME_URL:=http://file}   # where it is
      inner: {host: "db"}

      # how many
      threads: 0x2
  - provider_id: ${env.SECOND:+second}
    provider_type: remote::acme
  safety: []
models:
- {model_id: m, metadata: {a: 010}}
server:
    port: 8321
"""


def sensible(provider, hardware):
    return {"hidden": because("measured", "it was"), "inner": {"port": 8080}}


def opened(folder, data=FILE, *, plugin=None, **options) -> Stack:
    return open_stack(folder, data, plugin or Owner(Config, defaults=sensible), **options)


def added(before: str, after: str) -> list[str]:
    """The lines that are new, and those that are gone with a minus before them."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line[2:] if line[0] == "+" else line for line in lines if line[0] in "+-"]


def resolved_again(folder, text: str, environ=None, *, plugin=None) -> dict[str, Any]:
    """The snapshots of a stack that is only this file."""
    (folder / "again").mkdir(exist_ok=True)
    plugin = plugin or Owner(Config, defaults=sensible)
    with open_stack(folder / "again", text, plugin, environ=environ) as stack:
        assert stack.resolution.errors == ()
        return snapshots(stack)


def snapshots(stack: Stack) -> dict[str, Any]:
    return {key: snapshot(each, str) for key, each in stack.resolution.providers.items()}


def test_only_the_lines_that_must_are_changed(tmp_path):
    with opened(tmp_path) as stack:
        stack.configurations.register(overlay({"threads": 4, "text": "yes"}), name="mine")
        exported = stack.export(in_place=True)
        text = (tmp_path / "stack.yaml").read_text(encoding="utf-8")
        assert exported.text == text
        assert added(FILE, text) == [
            '-       inner: {host: "db"}',
            '      inner: {host: "db", port: 8080}',
            "-       threads: 0x2",
            "      threads: 4",
            "      hidden: measured",
            "      text: 'yes'",
        ]
        assert exported.issues == exported.variables == ()
        wanted = snapshots(stack)
    with opened(tmp_path, text) as stack:
        assert snapshots(stack) == wanted
        assert stack.export(in_place=True).changes == ()
    assert (tmp_path / "stack.yaml").read_text(encoding="utf-8") == text


def test_each_change_says_who_wants_it(tmp_path):
    with opened(tmp_path) as stack:
        stack.configurations.register(overlay({"threads": 4}), name="mine")
        changes = stack.export().changes
    assert [(each.path, each.value, each.source) for each in changes] == [
        ("config.hidden", "measured", "hardware"),
        ("config.inner.port", 8080, "hardware"),
        ("config.threads", 4, "configuration `mine`"),
    ]


def test_a_reference_stays_one_and_is_never_resolved(tmp_path):
    environ = {"ACME_URL": "http://environment", "SECOND": ""}
    with opened(tmp_path, environ=environ) as stack:
        text = stack.export().text
    assert "url: ${env.ACME_URL:=http://file}   # where it is\n" in text
    assert "http://environment" not in text
    assert "- provider_id: ${env.SECOND:+second}\n" in text


def test_the_older_grammar_is_kept(tmp_path):
    data = FILE.replace(":=", ":").replace(":+", "+")
    with opened(tmp_path, data) as stack:
        stack.configurations.register(overlay({"api_key": "${env.PATH}"}))
        text = stack.export().text
    assert "url: ${env.ACME_URL:http://file}   # where it is\n" in text
    assert "api_key: ${env.PATH}\n" in text


STRANGE = [
    "0123",
    "yes",
    "null",
    "~",
    "1e3",
    "0x1F",
    "1:20",
    "2024-01-31",
    "",
    " lead and trail ",
    "a: b",
    "a #b",
    "- a",
    "{}",
    "[",
    "*a",
    "&a",
    "!a",
    "%a",
    "@a",
    "`a",
    "'",
    '"',
    "\\",
    "a\nb\n",
    "a\r\nb",
    "\ttab",
    "é 日本 😀",
    "\u2028\x85\ufeff",
    "$HOME",
    "${X}",
    "${",
    "}",
    "{{ X }}",
    "~/x",
    "<<",
    "=",
    "x" * 5000,
]


@pytest.mark.parametrize("block", [True, False])
def test_strange_texts_survive(tmp_path, block):
    config = {"named": {f"key {number}": text for number, text in enumerate(STRANGE)}, "tags": STRANGE}
    data = FILE if block else yaml.safe_dump(yaml.safe_load(FILE), default_flow_style=True)
    with opened(tmp_path, data) as stack:
        stack.configurations.register(overlay(config))
        exported = stack.export()
        wanted = snapshots(stack)
    assert exported.variables == ()
    (entry, *_) = yaml.safe_load(exported.text)["providers"]["inference"]
    assert entry["config"]["tags"] == STRANGE
    assert list(entry["config"]["named"].values()) == STRANGE
    assert resolved_again(tmp_path, exported.text) == wanted


@pytest.mark.parametrize("text", ["${env.X}", "a ${env.X:=b} c", "${env.lower}", "${env.X:-b}"])
def test_a_text_that_would_be_taken_for_a_reference_becomes_one(tmp_path, text):
    plugin = Owner(Config, defaults={"text": text})
    with opened(tmp_path, plugin=plugin) as stack:
        exported = stack.export()
        wanted = snapshots(stack)
    (variable,) = exported.variables
    assert (variable.name, variable.what) == (
        "INFERENCE_ACME_TEXT",
        "a text that a stack file would take for a reference",
    )
    plugin = Owner(Config)
    assert resolved_again(tmp_path, exported.text, {variable.name: text}, plugin=plugin) == wanted


KINDS = [
    {"text": None},
    {"free": None},
    {"free": [1, {"a": [None, True]}, "x"]},
    {"free": {"deep": {"er": 1.5}}},
    {"named": {}},
    {"named": {"a b": {"c": []}}},
    {"tags": []},
    {"inner": {"host": "there", "port": 1}},
    {"box": {"kind": "large", "room": "r"}},
    {"box": {"kind": "small", "size": 3}},
    {"aliased": 3},
    {"aliasedName": 3},
    {"threads": 10**20},
]


@pytest.mark.parametrize(
    "file", [{}, {"box": {"kind": "small", "size": 2}, "aliasedName": 9, "free": {"x": 1}}]
)
@pytest.mark.parametrize("config", KINDS)
def test_every_kind_of_value_is_read_again_as_it_was(tmp_path, config, file):
    with opened(tmp_path, one(file)) as stack:
        stack.configurations.register(overlay(config))
        exported = stack.export()
        wanted = snapshots(stack)
    assert resolved_again(tmp_path, exported.text) == wanted
    (entry,) = yaml.safe_load(exported.text)["providers"]["inference"]
    assert "aliased" not in entry["config"]  # upstream knows only the alias


def test_all_writes_what_the_classes_give_too(tmp_path):
    with opened(tmp_path) as stack:
        text = stack.export(class_defaults=True).text
        wanted = snapshots(stack)
    config = yaml.safe_load(text)["providers"]["inference"][0]["config"]
    assert config.keys() == (Config.model_fields.keys() - {"aliased"}) | {"aliasedName"}
    assert resolved_again(tmp_path, text) == wanted
    with opened(tmp_path) as stack:
        assert "text:" not in stack.export().text


class Marker:
    def __str__(self) -> str:
        return "a marker"


class Odd(BaseModel, arbitrary_types_allowed=True):
    fine: int = 1
    odd: Marker = Marker()


def test_what_a_class_gives_and_nobody_can_write_is_left_out_and_said(tmp_path):
    with open_stack(tmp_path, one(), Owner(Odd)) as stack:
        exported = stack.export(class_defaults=True)
    assert [issue.code for issue in exported.issues] == ["class-defaults"]
    assert yaml.safe_load(exported.text)["providers"]["inference"][0]["config"] == {}


# Secrets

SECRETS = {
    "api_key": f"{CANARY}a",
    "url": f"postgres://me:{CANARY}b@host/db?api_key={CANARY}c",
    "api_keys": [f"{CANARY}d", f"{CANARY}e"],
    "inner": {"password": f"{CANARY}f"},
    "named": {"Authorization": f"Bearer {CANARY}g", "accept": "json"},
    "free": {"arguments": ["--token", f"{CANARY}h"]},
}


def test_a_literal_secret_is_not_copied_and_a_variable_stands_for_it(tmp_path):
    data = {**one(SECRETS), "server": {"auth": {"token": f"{CANARY}i"}}}
    text = f"# api_key: {CANARY}j\n" + yaml.safe_dump(data) + f"# postgres://x:{CANARY}k@y, {CANARY}a\n"
    with opened(tmp_path, text, plugin=Owner(Config)) as stack:
        exported = stack.export(tmp_path / "new.yaml")
        wanted = snapshots(stack)
        source = (tmp_path / "stack.yaml").read_text(encoding="utf-8")
    assert source == text
    assert CANARY not in (tmp_path / "new.yaml").read_text(encoding="utf-8")
    assert CANARY not in repr(exported)
    names = [variable.name for variable in exported.variables]
    values = dict(zip(names, (f"{CANARY}{letter}" for letter in order_of(names)), strict=True))
    values["INFERENCE_ACME_NAMED_AUTHORIZATION"] = f"Bearer {CANARY}g"
    assert resolved_again(tmp_path, exported.text, values, plugin=Owner(Config)) == wanted


def order_of(names) -> list[str]:
    letters = {
        "INFERENCE_ACME_API_KEY": "a",
        "INFERENCE_ACME_URL_PASSWORD": "b",
        "INFERENCE_ACME_URL_PASSWORD_2": "c",
        "INFERENCE_ACME_API_KEYS_0": "d",
        "INFERENCE_ACME_API_KEYS_1": "e",
        "INFERENCE_ACME_INNER_PASSWORD": "f",
        "INFERENCE_ACME_NAMED_AUTHORIZATION": "g",
        "INFERENCE_ACME_FREE_ARGUMENTS_1": "h",
        "SERVER_AUTH_TOKEN": "i",
    }
    assert set(names) == set(letters)
    return [letters[name] for name in names]


def test_in_place_the_operators_own_secret_stays_and_is_warned_of(tmp_path):
    text = yaml.safe_dump(one({"api_key": f"{CANARY}a", "url": f"http://me:{CANARY}@h", "threads": 2}))
    with opened(tmp_path, text) as stack:
        exported = stack.export(in_place=True)
    assert [(issue.code, issue.path) for issue in exported.issues] == [
        ("literal-secret", "config.api_key"),
        ("literal-secret", "config.url"),
    ]
    assert all(issue.where for issue in exported.issues)
    assert CANARY not in repr(exported)
    after = (tmp_path / "stack.yaml").read_text(encoding="utf-8")
    assert all(line in after for line in text.splitlines())


@pytest.mark.parametrize(
    ("given", "written", "needed"),
    [
        ("${env.KEY}", "${env.KEY}", []),
        ("${env.KEY:=}", "${env.KEY:=}", []),
        (f"${{env.KEY:={CANARY}}}", "${env.KEY}", ["KEY"]),
        ("${env.KEY:=fake}", "${env.KEY:=fake}", []),
        ("fake", "fake", []),
        ("fake${env.KEY}", "${env.INFERENCE_ACME_API_KEY}", ["INFERENCE_ACME_API_KEY"]),
        ("Bearer ${env.KEY}", "Bearer ${env.KEY}", []),
        (f"{CANARY}${{env.KEY}}", "${env.INFERENCE_ACME_API_KEY}", ["INFERENCE_ACME_API_KEY"]),
        (f"${{env.KEY:+{CANARY}}}", "${env.INFERENCE_ACME_API_KEY}", ["INFERENCE_ACME_API_KEY"]),
    ],
)
def test_the_references_of_a_secret_are_kept_without_what_is_literal(tmp_path, given, written, needed):
    with opened(tmp_path, one({"api_key": given}), environ={"KEY": f"{CANARY}z"}) as stack:
        exported = stack.export()
    assert yaml.safe_load(exported.text)["providers"]["inference"][0]["config"]["api_key"] == written
    assert [variable.name for variable in exported.variables] == needed
    assert CANARY not in exported.text


@pytest.mark.parametrize(
    ("given", "written", "needed"),
    [
        ("pg://me:${env.PW}@h", "pg://me:${env.PW}@h", []),
        (f"pg://me:${{env.PW:={CANARY}}}@h", "pg://me:${env.PW}@h", ["PW"]),
        (f"${{env.DB:=pg://me:{CANARY}@h}}", "${env.DB}", ["DB"]),
        (
            f"pg://${{env.USER:=me}}:{CANARY}@h",
            "pg://${env.USER:=me}:${env.INFERENCE_ACME_URL_PASSWORD}@h",
            ["INFERENCE_ACME_URL_PASSWORD"],
        ),
    ],
)
def test_a_url_keeps_all_but_its_password(tmp_path, given, written, needed):
    with opened(tmp_path, one({"url": given}), environ={"PW": f"{CANARY}z"}) as stack:
        exported = stack.export()
    assert yaml.safe_load(exported.text)["providers"]["inference"][0]["config"]["url"] == written
    assert [variable.name for variable in exported.variables] == needed
    assert CANARY not in exported.text


def test_the_secrets_of_configurations_are_written_as_references(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", f"{CANARY}a")
    (tmp_path / "key").write_text(f"{CANARY}b\n", encoding="utf-8")
    file = f"${{file:{tmp_path}/key}}"
    with opened(tmp_path) as stack:
        stack.configurations.register(overlay({"api_key": "${env.KEY}", "inner": {"password": file}}))
        exported = stack.export(in_place=True)
        wanted = snapshots(stack)
    config = yaml.safe_load(exported.text)["providers"]["inference"][0]["config"]
    assert config["api_key"] == "${env.KEY}"
    assert config["inner"]["password"] == "${env.INFERENCE_ACME_INNER_PASSWORD}"
    (variable,) = exported.variables
    assert file in variable.what
    assert CANARY not in exported.text + repr(exported)
    environ = {"KEY": f"{CANARY}a", variable.name: f"{CANARY}b"}
    assert resolved_again(tmp_path, exported.text, environ) == wanted
    with opened(tmp_path, exported.text, environ=environ) as stack:
        assert stack.export().changes == ()  # and again: nothing is new


def test_references_in_a_list_stay_and_sealed_secrets_become_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", f"{CANARY}a")
    monkeypatch.setenv("STACKCONF_SECRET_KEY", new_key())
    with opened(tmp_path) as stack:
        config = {"api_keys": ["${env.KEY}", f"{CANARY}b"], "api_key": f"{CANARY}c"}
        stack.configurations.register(overlay(config))
        exported = stack.export()
        wanted = snapshots(stack)
        stack.apply()
        applied = stack.export(applied=True)
    written = yaml.safe_load(exported.text)["providers"]["inference"][0]["config"]
    assert written["api_keys"] == ["${env.KEY}", "${env.INFERENCE_ACME_API_KEYS_1}"]
    assert written["api_key"] == "${env.INFERENCE_ACME_API_KEY}"
    assert CANARY not in exported.text + applied.text + repr(exported) + repr(applied)
    environ = {
        "KEY": f"{CANARY}a",
        "INFERENCE_ACME_API_KEYS_1": f"{CANARY}b",
        "INFERENCE_ACME_API_KEY": f"{CANARY}c",
    }
    assert resolved_again(tmp_path, exported.text, environ) == wanted
    assert resolved_again(tmp_path, applied.text, environ) == wanted


def test_a_new_name_clashes_with_none_that_means_something(tmp_path):
    data = one({"api_key": CANARY, "text": "${env.INFERENCE_ACME_API_KEY:=x}"})
    environ = {"INFERENCE_ACME_API_KEY_2": "something else"}
    with opened(tmp_path, data, environ=environ) as stack:
        (variable,) = stack.export().variables
    assert variable.name == "INFERENCE_ACME_API_KEY_3"


def test_what_the_hardware_gives_as_a_secret_is_a_variable(tmp_path):
    plugin = Owner(Config, defaults={"api_key": SecretStr(CANARY), "url": f"http://me:{CANARY}@h"})
    with opened(tmp_path, one(), plugin=plugin) as stack:
        exported = stack.export()
    assert [variable.name for variable in exported.variables] == [
        "INFERENCE_ACME_API_KEY",
        "INFERENCE_ACME_URL_PASSWORD",
    ]
    assert CANARY not in exported.text


def test_a_shared_anchor_is_written_out_only_where_a_change_would_reach_others(tmp_path):
    data = f"""\
x-shared: &shared {{url: 'http://s', api_key: {CANARY}}}
providers:
  inference:
  - {{provider_id: acme, provider_type: remote::acme, config: *shared}}
  - provider_id: other
    provider_type: remote::acme
    config:
      <<: *shared
      threads: 3
"""
    with opened(tmp_path, data, plugin=Owner(Config)) as stack:
        stack.configurations.register(overlay({"url": "http://mine"}))
        exported = stack.export()
        wanted = snapshots(stack)
    assert CANARY not in exported.text
    assert "<<: *shared" in exported.text
    environ = {variable.name: CANARY for variable in exported.variables}
    assert len(environ) == 1
    assert resolved_again(tmp_path, exported.text, environ, plugin=Owner(Config)) == wanted


# Files


def test_mode_and_link_of_the_file_stay(tmp_path):
    with opened(tmp_path) as stack:
        stack.close()
    real = tmp_path / "real.yaml"
    (tmp_path / "stack.yaml").rename(real)
    (tmp_path / "stack.yaml").symlink_to("real.yaml")
    real.chmod(0o640)
    registry = registry_of(Owner(Config, defaults=sensible))
    with Stack.open(tmp_path / "stack.yaml", registry=registry, hardware=MACHINE, environ={}) as stack:
        stack.export(in_place=True)
    assert (tmp_path / "stack.yaml").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert "hidden: measured" in real.read_text(encoding="utf-8")


def test_a_file_that_changed_meanwhile_is_not_overwritten(tmp_path):
    with opened(tmp_path) as stack:
        stack.resolution  # noqa: B018 (read by now)
        (tmp_path / "stack.yaml").write_text("providers: {}\n", encoding="utf-8")
        with pytest.raises(StackconfError, match="changed while it was exported; nothing was written"):
            stack.export(in_place=True)
    assert (tmp_path / "stack.yaml").read_text(encoding="utf-8") == "providers: {}\n"


def test_line_ends_and_a_byte_order_mark_stay(tmp_path):
    data = ("\ufeff" + FILE).replace("\n", "\r\n").encode()
    with opened(tmp_path) as stack:
        stack.close()
    (tmp_path / "stack.yaml").write_bytes(data)
    registry = registry_of(Owner(Config, defaults=sensible))
    with Stack.open(tmp_path / "stack.yaml", registry=registry, hardware=MACHINE, environ={}) as stack:
        stack.export(in_place=True)
    after = (tmp_path / "stack.yaml").read_bytes()
    assert after.startswith(b"\xef\xbb\xbf# The stack of the house\r\n")
    assert after.count(b"\n") == after.count(b"\r\n") == data.count(b"\n") + 1
    assert b"      hidden: measured\r\n" in after


def test_a_file_that_exists_keeps_its_own_comments_and_keys(tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(
        "# theirs\nversion: 2\nimage_name: other\nproviders:\n  inference:\n"
        "  - provider_id: acme  # the same\n    provider_type: remote::acme\n"
        "  - {provider_id: gone, provider_type: 'remote::acme'}\n",
        encoding="utf-8",
    )
    data = one({"url": "http://file", "text": "${env.T:=t}"})
    data["providers"]["inference"].append(one_entry({"threads": 3}, provider_id="second"))
    with opened(tmp_path, data) as stack:
        exported = stack.export(other)
        wanted = snapshots(stack)
    text = other.read_text(encoding="utf-8")
    assert text.startswith("# theirs\nversion: 2\nimage_name: other\n")
    assert "  - provider_id: acme  # the same\n" in text
    assert "text: ${env.T:=t}\n" in text
    assert [issue.code for issue in exported.issues] == ["not-exported"]
    assert resolved_again(tmp_path, text) == wanted


def test_a_file_that_is_no_stack_file_is_refused_and_stays(tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("- dear diary\n", encoding="utf-8")
    with opened(tmp_path) as stack, pytest.raises(InvalidConfig):
        stack.export(other)
    assert other.read_text(encoding="utf-8") == "- dear diary\n"


def test_an_invalid_stack_is_not_exported(tmp_path):
    with opened(tmp_path, one({"threads": "many"})) as stack, pytest.raises(InvalidConfig, match="1 error"):
        stack.export(in_place=True)


def test_a_sealed_stack_is_exported_without_what_does_not_count(tmp_path):
    with opened(tmp_path, one()) as stack:
        stack.configurations.register(overlay({"threads": 4}))
    with opened(tmp_path, {**one(), "stackconf": {"sealed": True}}) as stack:
        assert "threads" not in stack.export().text


def test_a_provider_that_is_not_managed_stands_as_it_is_but_for_its_secrets(tmp_path):
    data = one()
    odd = one_entry({"token": CANARY, "x": 1}, provider_id="odd", provider_type="remote::unheard-of")
    data["providers"]["inference"].append(odd)
    with opened(tmp_path, data, skip_unknown=True) as stack:
        exported = stack.export()
    entry = yaml.safe_load(exported.text)["providers"]["inference"][1]
    assert entry["config"] == {"token": "${env.INFERENCE_ODD_TOKEN}", "x": 1}


def test_a_provider_that_is_not_managed_stays_in_what_is_applied(tmp_path):
    data = one()
    odd = one_entry({"x": 1}, provider_id="odd", provider_type="remote::unheard-of")
    data["providers"]["inference"].append(odd)
    with opened(tmp_path, data, skip_unknown=True) as stack:
        stack.apply()
        exported = stack.export(applied=True)
    assert yaml.safe_load(exported.text)["providers"]["inference"][1] == odd


# What is applied


def test_what_is_applied_is_exported_and_not_what_was_registered_since(tmp_path):
    with opened(tmp_path) as stack:
        stack.configurations.register(overlay({"threads": 4}))
        stack.apply()
        applied = snapshots(stack)
        stack.configurations.register(overlay({"threads": 9}))
        text = stack.export(applied=True).text
        assert added(FILE, text) == added(FILE, text.replace("threads: 9", "threads: 4"))
        assert "threads: 4\n" in text
    assert resolved_again(tmp_path, text) == applied


def test_what_is_applied_is_exported_when_the_file_no_longer_validates(tmp_path):
    with opened(tmp_path) as stack:
        stack.configurations.register(overlay({"threads": 4, "inner": {"host": "applied"}}))
        stack.apply()
        applied = snapshots(stack)
    broken = FILE.replace("threads: 0x2", "threads: many\n      thraeds: 3")
    broken = broken.replace("  safety: []", "  safety:\n  - {provider_id: new, provider_type: 'remote::no'}")
    with opened(tmp_path, broken) as stack:
        exported = stack.export(applied=True)
    assert "thraeds" not in exported.text
    assert "# The stack of the house\n" in exported.text
    assert "url: ${env.ACME_URL:=http://file}   # where it is\n" in exported.text
    assert [issue.code for issue in exported.issues] == ["not-exported"]
    assert resolved_again(tmp_path, exported.text) == applied


def test_what_is_applied_is_exported_when_the_configurations_are_damaged(tmp_path):
    with opened(tmp_path) as stack:
        stack.configurations.register(overlay({"threads": 4}))
        stack.apply()
        applied = snapshots(stack)
        path = stack.store.path
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER revision_is_immutable")
    db.execute("UPDATE revision SET state = 'garbled'")
    db.commit()
    db.close()
    with opened(tmp_path) as stack:
        exported = stack.export(applied=True)
    assert resolved_again(tmp_path, exported.text) == applied


def test_secrets_of_what_is_applied(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", f"{CANARY}a")
    (tmp_path / "key").write_text(f"{CANARY}b", encoding="utf-8")
    file = f"${{file:{tmp_path}/key}}"
    data = one({"url": f"pg://me:{CANARY}c@h/db", "named": {"token": f"{CANARY}d"}})
    with opened(tmp_path, data) as stack:
        stack.configurations.register(overlay({"api_key": "${env.KEY}", "inner": {"password": file}}))
        stack.apply()
    changed = one({"url": f"pg://me:{CANARY}x@h/db", "named": {"token": f"{CANARY}d"}})
    with opened(tmp_path, changed) as stack:
        exported = stack.export(applied=True)
    config = yaml.safe_load(exported.text)["providers"]["inference"][0]["config"]
    assert config["api_key"] == "${env.KEY}"
    assert config["url"].startswith("pg://me:${env.INFERENCE_ACME_URL_PASSWORD")
    names = {variable.name for variable in exported.variables}
    assert {"INFERENCE_ACME_INNER_PASSWORD", "INFERENCE_ACME_NAMED_TOKEN"} <= names
    assert CANARY not in exported.text + repr(exported)


def test_a_reference_whose_value_moved_since_stays_and_is_said(tmp_path):
    with opened(tmp_path, environ={"ACME_URL": "http://then"}) as stack:
        stack.apply()
    with opened(tmp_path, environ={"ACME_URL": "http://now"}) as stack:
        exported = stack.export(applied=True)
    assert "url: ${env.ACME_URL:=http://file}   # where it is\n" in exported.text
    assert "http://then" not in exported.text
    (issue,) = exported.issues
    assert (issue.code, issue.path) == ("kept-reference", "config.url")


def test_providers_that_only_one_side_has(tmp_path):
    data = one()
    data["providers"]["inference"].append(one_entry({"threads": 3}, provider_id="second"))
    data["apis"] = ["inference"]
    with opened(tmp_path, data) as stack:
        stack.apply()
        applied = snapshots(stack)
    elsewhere = {"apis": ["safety"], "providers": {"safety": [one_entry(provider_id="new")]}}
    with opened(tmp_path, elsewhere) as stack:
        exported = stack.export(applied=True)
    written = yaml.safe_load(exported.text)
    assert written["apis"] == ["safety", "inference"]
    assert written["providers"]["safety"] == []
    assert resolved_again(tmp_path, exported.text) == applied


def test_nothing_applied_is_said(tmp_path):
    with opened(tmp_path) as stack, pytest.raises(InvalidConfig, match="nothing is applied"):
        stack.export(applied=True)


# Whatever comes


@given(config_and_data(), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_export_resolves_alone_to_what_the_layers_gave(tmp_path_factory, drawn, flow):
    config_class, file, overlays = drawn
    folder = tmp_path_factory.mktemp("export")
    text = yaml.safe_dump(one(file), default_flow_style=flow, sort_keys=False)
    plugin = Owner(config_class)
    with open_stack(folder, text, plugin) as stack:
        for number, values in enumerate(overlays):
            try:
                stack.configurations.register(overlay(values), name=f"c{number}")
            except InvalidConfig:
                continue
        wanted = snapshots(stack)
        for options in ({}, {"class_defaults": True}):
            exported = stack.export(**options)
            assert resolved_again(folder, exported.text, plugin=plugin) == wanted
        stack.apply()
        exported = stack.export(applied=True, in_place=True)
        assert resolved_again(folder, exported.text, plugin=plugin) == wanted
