"""Secrets at rest: sealed once, opened in their place only, and rotated without a trace."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from base64 import urlsafe_b64encode
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from core_kit import Owner, effective, lines, one, one_entry, open_stack, overlay
from cryptography.fernet import Fernet
from pydantic import BaseModel, Field, SecretStr
from test_core_secrets import Vault as Config

from stackconf import Applied, InvalidConfig, SecretError, user_field
from stackconf.redact import REDACTED
from stackconf.resolve.references import sealed_id
from stackconf.sealing import KEY_FILE_VARIABLE, KEY_VARIABLE, key_id, keyring, keys_in, new_key
from stackconf.store.base import DIGEST_KEY
from stackconf.vault import Dropped, Rotated, write_new_key

CANARY = "canary4711"
ONE, TWO = (urlsafe_b64encode(sha256(each).digest()).decode() for each in (b"one", b"two"))
"""The same in every process, so that the tests have the same names in each."""


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv(KEY_FILE_VARIABLE, raising=False)


@pytest.fixture
def key(monkeypatch):
    """A key in the environment."""
    monkeypatch.setenv(KEY_VARIABLE, ONE)
    return ONE


def two_providers():
    return {"providers": {"inference": [one_entry(), {**one_entry(), "provider_id": "other"}]}}


def kept_of(registered) -> Any:
    return registered.kept["inference"][0]["config"]


def bytes_of(folder) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def database(stack) -> sqlite3.Connection:
    return sqlite3.connect(stack.store.path)


def key_file(folder, *keys, mode=0o600):
    file = folder / "keys"
    file.write_text("".join(f"{each}\n" for each in keys))
    file.chmod(mode)
    return file


# Going in


EVERYWHERE = {
    "api_key": f"{CANARY}a",
    "token": f"{CANARY}c",
    "labelled": f"{CANARY}d",
    "api_keys": [f"{CANARY}i", f"{CANARY}j"],
    "named": {"Authorization": f"Bearer {CANARY}k", "accept": "json"},
    "free": {"deep": {"client_secret": f"{CANARY}m"}, "list": [{"password": f"{CANARY}n"}], "n": 1},
    "anything": {"credentials": {"who": f"{CANARY}o", "n": 17}},
    "maps": {"one": {"passphrase": f"{CANARY}s", "pin": 47114711}},
    "several": [{"passphrase": f"{CANARY}t"}],
}


def test_a_literal_in_every_kind_of_place_is_sealed_and_arrives(tmp_path, key):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        registered = stack.configurations.register(overlay(EVERYWHERE))
        shown = json.dumps(registered.kept)
        assert CANARY not in shown
        assert "47114711" not in shown
        assert shown.count("${sealed:") == 13
        assert kept_of(registered)["named"]["accept"] == "json"
        assert kept_of(registered)["free"]["n"] == 1
        now = effective(stack)
        for name in ("token", "labelled", "api_keys", "named", "free", "anything"):
            assert getattr(now, name) == EVERYWHERE[name]
        assert now.api_key.get_secret_value() == EVERYWHERE["api_key"]
        assert (now.maps["one"].passphrase, now.maps["one"].pin) == (f"{CANARY}s", 47114711)
        assert now.several[0].passphrase == f"{CANARY}t"
        stack.apply()
        (told,) = stack.explain("acme", "api_key")
        assert told.reason == f"from {kept_of(registered)['api_key']}"
    found = bytes_of(tmp_path)
    assert CANARY.encode() not in found
    assert b"47114711" not in found
    assert key.encode() not in found


def test_a_secret_model_is_sealed_as_a_whole(tmp_path, key):
    class Inner(BaseModel):
        host: str = "x"
        port: int = 1

    class Whole(BaseModel):
        whole: Inner | None = user_field(None, secret=True)

    with open_stack(tmp_path, one(), Owner(Whole)) as stack:
        registered = stack.configurations.register(overlay({"whole": {"host": CANARY, "port": 4711}}))
        assert sealed_id(kept_of(registered)["whole"]["host"])
        assert sealed_id(kept_of(registered)["whole"]["port"])
        assert effective(stack).whole == Inner(host=CANARY, port=4711)


def test_an_alias_is_the_same_place(tmp_path, key):
    class Aliased(BaseModel):
        api_key: SecretStr | None = Field(None, alias="apiKey", json_schema_extra={"user_field": True})

    with open_stack(tmp_path, one(), Owner(Aliased)) as stack:
        first = stack.configurations.register(overlay({"apiKey": CANARY}))
        second = stack.configurations.register(overlay({"api_key": CANARY}))
        assert first.revision == second.revision == 1
        assert effective(stack).api_key.get_secret_value() == CANARY


def test_the_same_secret_again_makes_no_revision_and_another_makes_one(tmp_path, key):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        first = stack.configurations.register(overlay(EVERYWHERE))
        again = stack.configurations.register(overlay(EVERYWHERE))
        assert (again.revision, again.kept) == (1, first.kept)
        assert len(stack.store.sealed()) == 14  # and the digest key
        other = stack.configurations.register(overlay({**EVERYWHERE, "token": "another"}))
        assert other.revision == 2
        same = {name for name in EVERYWHERE if kept_of(first)[name] == kept_of(other)[name]}
        assert same == EVERYWHERE.keys() - {"token"}
        assert len(stack.store.sealed()) == 15
        typed = stack.configurations.register(overlay({"maps": {"one": {"pin": "47114711"}}}), name="typed")
        assert typed.revision == 3


def test_nothing_is_sealed_twice_or_opened_twice(tmp_path, key):
    token = Fernet(key).encrypt(b"x").decode()  # a secret that looks like what is stored
    shaped = '{"id": "0", "value": "x"}'
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        first = stack.configurations.register(overlay({"token": token, "labelled": shaped}))
        for _ in range(3):
            kept = stack.configurations.get("default").providers
            assert stack.configurations.register({"providers": kept}).revision == 1
            shown = stack.configurations.inspect()["providers"]["inference"][0]["config"]
            seen = {"token": shown["token"], "labelled": shown["labelled"]}
            assert seen == {"token": REDACTED, "labelled": REDACTED}
            assert stack.configurations.register(overlay(seen)).revision == 1
            stack.secrets.rotate()
        assert stack.configurations.get("default").providers == first.kept
        assert (effective(stack).token, effective(stack).labelled) == (token, shaped)
        for identity, sealed in stack.store.sealed().items():
            clear = json.loads(Fernet(key).decrypt(sealed.token))
            assert identity == clear["id"]
            if identity != DIGEST_KEY:
                assert clear["value"] in {token, shaped}


# Refused


def test_without_a_key_a_literal_is_refused_with_both_ways_out(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay({"api_key": CANARY, "url": "http://x"}))
        (line,) = lines(caught.value.issues)
        assert line == (
            "error: inference/acme: config.api_key: a secret is not stored in the clear, and there is no key"
            " here; give a reference, `${env.NAME}` or `${file:/run/secrets/name}`; or to have it encrypted:"
            " `stackconf secrets new-key -o FILE` makes a key, STACKCONF_SECRET_KEY_FILE=FILE uses it"
        )
        assert stack.revision == 0
    assert not (tmp_path / ".stackconf").exists()


WITHOUT_LIBRARY = """
import sys
from pathlib import Path

sys.modules["cryptography"] = None
sys.path.insert(0, sys.argv[1])
from core_kit import Owner, one, open_stack, overlay
from pydantic import BaseModel, SecretStr
from stackconf import InvalidConfig, user_field

class Config(BaseModel):
    api_key: SecretStr | None = user_field(None)
    url: str = user_field("")

with open_stack(Path(sys.argv[2]), one(), Owner(Config)) as stack:
    stack.configurations.register(overlay({"url": "x"}))
    try:
        stack.configurations.register(overlay({"api_key": "canary4711"}))
    except InvalidConfig as error:
        print(error.issues[0])
    print(stack.revision)
"""


def test_without_the_library_the_refusal_says_how_to_install_it(tmp_path, key):
    arguments = [str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARY, *arguments], capture_output=True, text=True, check=True
    )
    line, revision = done.stdout.splitlines()
    assert "the library `cryptography` is not installed" in line
    assert line.endswith('pip install "stackconf[secrets]"')
    assert CANARY not in line
    assert revision == "1"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no key in it"),
        ("# nothing\n\n", "has no key in it"),
        (f"{CANARY}\n", ":1: this is no key"),
        (f"{ONE}\n{ONE[:-1]}\n", ":2: this is no key"),
        (f"{ONE} {TWO}\n", ":1: this is no key"),
        ("A" * 43 + "=\n", ":1: this key is not random"),
        ("QUFB" * 10 + "QUE=\n", ":1: this key is not random"),
        ("x" * 70_000, "too large"),
    ],
)
def test_a_bad_key_file_is_one_clear_line_that_shows_nothing_of_it(tmp_path, monkeypatch, text, said):
    file = key_file(tmp_path)
    file.write_text(text)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(file))
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay({"api_key": CANARY}))
        (line,) = lines(caught.value.issues)
        assert said in line
        for word in (*text.split(), CANARY):
            assert word[:10] not in line or word == "#"
        assert stack.revision == 0


@pytest.mark.parametrize(
    ("mode", "fine"),
    [
        (0o600, True),
        (0o400, True),
        (0o440, True),
        (0o604, False),
        (0o644, False),
        (0o620, False),
        (0o602, False),
    ],
)
def test_a_key_file_that_others_may_read_is_refused(tmp_path, mode, fine):
    file = key_file(tmp_path, ONE, mode=mode)
    if fine:
        assert keys_in(file) == [ONE]
        return
    with pytest.raises(SecretError, match=f"open to others .mode {mode:04o}.; chmod 600"):
        keys_in(file)


def test_what_is_no_file_is_no_key_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path, "is a directory"),
        (tmp_path / "none", "no such file"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / ("x" * 300), "file name too long"),
        (tmp_path / "a\0b", "no file has that name"),
    ):
        with pytest.raises(SecretError, match=said):
            keys_in(path)


def test_a_bad_key_in_the_environment_is_counted_and_not_shown():
    with pytest.raises(SecretError) as caught:
        keyring(None, {KEY_VARIABLE: f"{ONE} {CANARY}"}).check()
    assert str(caught.value).startswith("STACKCONF_SECRET_KEY, key 2: this is no key")
    assert CANARY not in str(caught.value)


def test_where_keys_come_from(tmp_path, monkeypatch):
    file = key_file(tmp_path, "# the new one", TWO, "", ONE)
    assert keyring(None, {}).ids == ()
    assert keyring(file, {}).ids == (key_id(TWO), key_id(ONE))
    assert keyring(tmp_path / "none", {KEY_FILE_VARIABLE: str(file)}).ids == (key_id(TWO), key_id(ONE))
    assert keyring(file, {KEY_VARIABLE: ONE, KEY_FILE_VARIABLE: "none"}).ids == (key_id(ONE),)
    assert keyring(None, {KEY_VARIABLE: f" {ONE}\n{TWO} "}).ids == (key_id(ONE), key_id(TWO))
    assert ONE not in repr(keyring(file, {}))
    monkeypatch.chdir("/")
    with open_stack(tmp_path, {**one(), "stackconf": {"secret_key_file": "keys"}}, Owner(Config)) as stack:
        assert stack.secrets.keys == (key_id(TWO), key_id(ONE))
        assert lines(stack.issues) == []
    with open_stack(tmp_path, {**one(), "stackconf": {"secret_key_file": 1}}, Owner(Config)) as stack:
        assert "`secret_key_file` must be a path" in lines(stack.issues)[0]


def test_a_typed_sealed_reference_counts_only_where_it_was_made(tmp_path, key):
    with open_stack(tmp_path, two_providers(), Owner(Config)) as stack:
        reference = kept_of(stack.configurations.register(overlay({"token": CANARY})))["token"]
        same = stack.configurations.register(overlay({"token": reference}))
        assert (same.revision, kept_of(same)["token"]) == (1, reference)

        def refusal(config, name="default", provider="inference/acme"):
            with pytest.raises(InvalidConfig) as caught:
                stack.configurations.register(overlay(config, provider), name)
            return lines(caught.value.issues)[0]

        assert "not the one that `other` has here" in refusal({"token": reference}, "other")
        assert "not the one" in refusal({"token": "${sealed:0123456789abcdef}"})
        assert "not the one" in refusal({"token": reference}, provider="inference/other")
        assert "not the one" in refusal({"labelled": reference})
        assert "not the one" in refusal({"named": {"Authorization": reference}})
        assert "only in a secret field" in refusal({"url": reference})
        assert "this is no reference; write" in refusal({"token": f"Bearer {reference}"})
        assert stack.revision == 1


# Opened in its place only


def test_a_row_or_a_reference_that_was_copied_does_not_open(tmp_path, key):
    with open_stack(tmp_path, two_providers(), Owner(Config)) as stack:
        kept = kept_of(stack.configurations.register(overlay({"token": CANARY, "labelled": "low"})))
        strong, weak = (sealed_id(kept[name]) for name in ("token", "labelled"))
        with closing(database(stack)) as db, db:  # the row of one under the id of the other
            db.execute(
                "UPDATE secret SET token = (SELECT token FROM secret WHERE id = ?) WHERE id = ?",
                (strong, weak),
            )
        (line,) = [line for line in lines(stack.issues) if "labelled" in line]
        assert "the sealed secret stands where another belongs" in line
        for provider, path in (("inference/other", ("token",)), ("inference/acme", ("labelled",))):
            with pytest.raises(SecretError, match=r"is for inference/acme: config.token, and"):
                stack.secrets.open(strong, provider, path)
        assert stack.secrets.open(strong, "inference/acme", ("token",)) == CANARY
        with pytest.raises(InvalidConfig):
            stack.apply()


def test_a_reference_copied_into_a_document_does_not_open(tmp_path, key):
    with open_stack(tmp_path, two_providers(), Owner(Config)) as stack:
        kept = kept_of(stack.configurations.register(overlay({"token": CANARY})))
        state = stack.store.read().state
        there = state.configurations["default"].providers["inference"][0]
        there["provider_id"] = "other"
        there["config"]["url"] = kept["token"]  # a field that is shown
        stack.store.append(1, state, action="forged", subject="", actor="")
    with open_stack(tmp_path, two_providers(), Owner(Config)) as stack:
        (line,) = lines(stack.issues)
        assert "inference/other: config.token: the sealed secret is for inference/acme" in line
        assert CANARY not in json.dumps(stack.effective())
        assert effective(stack, "inference/other").url == kept["token"]  # resolved in secret fields only


@pytest.mark.parametrize("how", ["no key", "wrong key", "row gone", "damaged"])
def test_what_cannot_be_opened_is_one_issue_for_each_field_with_advice(tmp_path, monkeypatch, how):
    monkeypatch.setenv(KEY_VARIABLE, ONE)
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"token": CANARY, "labelled": f"{CANARY}2"}))
    if how == "no key":
        monkeypatch.delenv(KEY_VARIABLE)
    if how == "wrong key":
        monkeypatch.setenv(KEY_VARIABLE, TWO)
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        with closing(database(stack)) as db, db:
            if how == "row gone":
                db.execute("DELETE FROM secret WHERE id <> 'digest-key'")
            if how == "damaged":
                db.execute("UPDATE secret SET token = substr(token, 1, 50) WHERE id <> 'digest-key'")
        issues = stack.issues
        assert [(each.path, each.code, each.level) for each in issues] == [
            ("config.labelled", "missing-secret", "error"),
            ("config.token", "missing-secret", "error"),
        ]
        said = {
            "no key": "there is no key here",
            "wrong key": f"it is sealed with the key `{key_id(ONE)}`, and only `{key_id(TWO)}` is here",
            "row gone": "the sealed secret is no longer in the store",
            "damaged": "was changed or damaged",
        }[how]
        for line in lines(issues):
            assert said in line
            assert "; " in line
            assert "given by configuration `default`" in line
        with pytest.raises(InvalidConfig, match="nothing was applied"):
            stack.apply()
        uses = stack.secrets.list()
        assert [bool(each.problem) for each in uses] == [True, True]
        if how in {"no key", "wrong key"}:
            assert {each.key for each in uses} == {key_id(ONE)}
        # what is not secret can still be registered: another machine may apply it
        registered = stack.configurations.register(overlay({"url": "http://x"}), name="more")
        assert registered.revision == 2
        if how in {"row gone", "damaged"}:
            again = stack.configurations.register(overlay({"token": CANARY, "labelled": f"{CANARY}2"}))
            assert again.revision == 3
            stack.apply()


# Rotation


def test_rotation_and_then_the_old_key_is_really_removed(tmp_path, monkeypatch):
    applied = []
    owner = Owner(Config, applying=lambda provider, config, previous: applied.append(config) or Applied())
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(key_file(tmp_path, ONE)))
    with open_stack(tmp_path, one(), owner) as stack:
        first = stack.configurations.register(overlay(EVERYWHERE))
        stack.apply()
        before = stack.store.sealed()
        write_new_key(tmp_path / "keys", add=True)
        new, old = keys_in(tmp_path / "keys")
        assert old == ONE
        assert stack.secrets.rotate() == Rotated(key_id(new), 13, 0)
        assert stack.secrets.rotate() == Rotated(key_id(new), 0, 13)
        assert stack.store.read().number == 1
        assert stack.configurations.get("default").providers == first.kept
        key_file(tmp_path, new)
        assert {each.key for each in stack.secrets.list()} == {key_id(new)}
        assert not stack.plan()
        found = bytes_of(tmp_path)
        for sealed in before.values():  # nothing is left for the old key to open
            assert sealed.token not in found
            assert sealed.token[30:70] not in found
    with open_stack(tmp_path, one(), owner) as stack:
        assert lines(stack.issues) == []
        assert not stack.plan()  # no digest looks changed
        assert effective(stack).token == EVERYWHERE["token"]
    assert len(applied) == 1
    key_file(tmp_path, ONE)
    with open_stack(tmp_path, one(), owner) as stack:
        assert len([line for line in lines(stack.issues) if "cannot be opened" in line]) == 13


def test_a_rotation_that_cannot_open_one_changes_none(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, ONE)
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"token": CANARY}))
        monkeypatch.setenv(KEY_VARIABLE, TWO)
        stack.configurations.register(overlay({"labelled": CANARY}), name="two")
        before = stack.store.sealed()
        with pytest.raises(SecretError, match=r"nothing was changed: the secret of .*--lost"):
            stack.secrets.rotate()
        assert stack.store.sealed() == before
        monkeypatch.setenv(KEY_VARIABLE, f"{TWO} {ONE}")
        assert stack.secrets.rotate() == Rotated(key_id(TWO), 1, 1)
        monkeypatch.delenv(KEY_VARIABLE)
        with pytest.raises(SecretError, match="there is no key here"):
            stack.secrets.rotate()


CUT_OFF = """
import os
import stackconf.store.sqlite as module
from stackconf.sealing import SealedSecret

insert = module._insert_sealed

def row_by_row(db, sealed, now):
    for number, (identity, each) in enumerate(sealed.items()):
        if number == 6:
            os.kill(os.getpid(), 9)
        insert(db, {{identity: each}}, now)

module._insert_sealed = row_by_row
store = module.SqliteStore({path!r})
store.change_sealed(lambda before, _: {{key: SealedSecret(b"new", "x") for key in before}})
"""


def test_a_rotation_that_is_cut_off_leaves_all_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, ONE)
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay(EVERYWHERE))
        before = stack.store.sealed()
        program = CUT_OFF.format(path=str(stack.store.path))
        done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
        assert done.returncode == -9, done.stderr
        assert stack.store.sealed() == before
        assert stack.secrets.rotate().unchanged == 13


# Dropping


def test_what_no_kept_revision_refers_to_is_dropped(tmp_path, key):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        first = stack.configurations.register(overlay({"token": CANARY}))
        stack.configurations.register(overlay({"token": "another"}))
        assert stack.secrets.drop() == Dropped(0)  # the revisions are all kept
        stack.rollback(1)
        assert stack.configurations.get("default").providers == first.kept
        assert effective(stack).token == CANARY
        stack.prune(1)
        assert stack.secrets.drop() == Dropped(1)
        assert len(stack.store.sealed()) == 2
        assert stack.secrets.drop() == Dropped(0)
        assert effective(stack).token == CANARY


@pytest.mark.parametrize("new", [None, TWO])
def test_after_a_lost_key_the_stack_can_be_used_again(tmp_path, monkeypatch, new):
    monkeypatch.setenv(KEY_VARIABLE, ONE)
    with open_stack(tmp_path, one({"token": "of the file"}), Owner(Config)) as stack:
        stack.configurations.register(overlay({"labelled": CANARY}))
        stack.apply()
    monkeypatch.delenv(KEY_VARIABLE)
    if new:
        monkeypatch.setenv(KEY_VARIABLE, new)
    with open_stack(tmp_path, one({"token": "of the file"}), Owner(Config)) as stack:
        assert stack.plan().errors
        assert stack.secrets.drop() == Dropped(0)
        assert stack.secrets.drop(lost=True) == Dropped(0, 1)
        assert "no longer in the store" in lines(stack.plan().errors)[0]
        stack.configurations.unregister("default")
        assert not stack.plan().errors
        assert stack.apply().state == "applied"
        assert not stack.plan()
        if new:
            stack.configurations.register(overlay({"labelled": CANARY}))
            stack.apply()
            assert effective(stack).labelled == CANARY


def test_a_store_that_is_not_there_is_not_made(tmp_path, key):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        assert stack.secrets.list() == []
        assert stack.secrets.rotate() == Rotated(key_id(ONE), 0, 0)
        assert stack.secrets.drop(lost=True) == Dropped(0)
    assert not (tmp_path / ".stackconf").exists()


# The digests


def test_the_digest_key_is_sealed_with_the_first_secret_and_stays_the_same(tmp_path, monkeypatch):
    data = one({"token": "pin1"})
    with open_stack(tmp_path, data, Owner(Config)) as stack:
        stack.apply()
        digest_key = stack.store.digest_key()
        assert digest_key in bytes_of(tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, ONE)
    with open_stack(tmp_path, data, Owner(Config)) as stack:
        stack.configurations.register(overlay({"labelled": CANARY}))
        assert stack.store.digest_key() == digest_key
        found = bytes_of(tmp_path)
        assert digest_key not in found
        assert digest_key.hex().encode() not in found
        (change,) = stack.plan().changes
        assert [each.path for each in change.fields] == ["labelled"]  # and not `token`
        stack.apply()
    with open_stack(tmp_path, data, Owner(Config)) as stack:
        assert stack.store.digest_key() == digest_key
        assert not stack.plan()
    monkeypatch.delenv(KEY_VARIABLE)
    with open_stack(tmp_path, data, Owner(Config)) as stack:
        assert "the key of the store's digests of secrets is sealed" in lines(stack.plan().errors)[-1]


def test_two_processes_that_seal_first_at_once_agree_on_the_digest_key(tmp_path, key):
    with (
        open_stack(tmp_path, one(), Owner(Config)) as first,
        open_stack(tmp_path, one(), Owner(Config)) as second,
    ):
        first.plan()
        second.plan()
        second.configurations.register(overlay({"labelled": CANARY}), name="b")
        first.configurations.register(overlay({"token": CANARY}), name="a")
        assert first.store.digest_key() == second.store.digest_key()
        first.apply()
        assert not second.plan()


def test_a_copied_store_with_its_key_opens_elsewhere(tmp_path, key):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"token": CANARY}))
    shutil.copytree(tmp_path / ".stackconf", tmp_path / "there" / ".stackconf")
    with open_stack(tmp_path / "there", one(), Owner(Config)) as stack:
        assert effective(stack).token == CANARY


# Fresh references


def test_a_secret_that_was_rotated_where_it_is_kept_is_seen_by_the_next_plan(tmp_path, monkeypatch):
    given = []
    owner = Owner(Config, applying=lambda provider, config, previous: given.append(config) or Applied())
    file = tmp_path / "secret"
    file.write_text("one")
    monkeypatch.setenv("ACME_KEY", "uno")
    with open_stack(tmp_path, two_providers(), owner) as stack:
        stack.configurations.register(overlay({"token": f"${{file:{file}}}", "labelled": "${env.ACME_KEY}"}))
        stack.apply()
        asked = len(owner.asked("default_config"))
        assert not stack.plan()
        assert not stack.apply().outcomes
        assert set(owner.asked("default_config")[asked:]) == {"inference/acme"}  # no other provider
        file.write_text("two")
        (change,) = stack.plan().changes
        assert [each.path for each in change.fields] == ["token"]
        stack.apply()
        monkeypatch.setenv("ACME_KEY", "dos")
        stack.apply()
        assert [(each.token, each.labelled) for each in given if each.token] == [
            ("one", "uno"),
            ("two", "uno"),
            ("two", "dos"),
        ]
        file.unlink()
        assert "cannot be read" in lines(stack.plan().errors)[0]
        file.write_text("two")
        assert not stack.plan()


def test_a_plan_is_stale_when_a_secret_was_rotated_since(tmp_path):
    file = tmp_path / "secret"
    file.write_text("one")
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"token": f"${{file:{file}}}"}))
        plan = stack.plan()
        file.write_text("two")
        with pytest.raises(Exception, match="stale"):
            stack.apply(plan)


# Making keys


def test_a_new_key_is_for_its_owner_only_and_replaces_nothing(tmp_path):
    file = tmp_path / "key"
    identity = write_new_key(file)
    assert file.stat().st_mode & 0o777 == 0o600
    (first,) = keys_in(file)
    assert key_id(first) == identity
    with pytest.raises(SecretError, match="is there already"):
        write_new_key(file)
    assert keys_in(file) == [first]
    write_new_key(file, add=True)
    assert keys_in(file)[1:] == [first]
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("something else")
    with pytest.raises(SecretError, match="this is no key"):
        write_new_key(file, add=True)
    assert file.read_text() == "something else"
    with pytest.raises(SecretError, match="no such file or directory"):
        write_new_key(tmp_path / "none" / "key")


def test_keys_are_those_of_the_library():
    assert Fernet(new_key()).encrypt(b"x")
    made = Fernet.generate_key().decode()
    assert keyring(None, {KEY_VARIABLE: made}).ids == (key_id(made),)
