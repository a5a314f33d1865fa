"""What was last applied can be shown and is kept, whatever is damaged."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from core_kit import Owner, lines, one, open_stack, overlay
from pydantic import BaseModel, SecretStr

from stackconf import InvalidConfig, Stack, StoreDamaged, StoreError, user_field
from stackconf.store.checking import check
from stackconf.store.lastgood import last_applied, lastgood_path, read_lastgood
from stackconf.store.sqlite import digest_of


class Config(BaseModel):
    port: int = user_field(80)
    token: SecretStr = SecretStr("canary-of-the-class")


class Strict(BaseModel):
    port: int = user_field(80, le=10)


def store_of(folder: Path) -> Path:
    return folder / ".stackconf" / "stack.yaml.sqlite3"


@pytest.fixture
def applied(tmp_path: Path) -> Path:
    """A folder with a stack of which revision 2 is applied, and revision 3 registered."""
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"port": 1}), "a")
        stack.configurations.register(overlay({"port": 2}), "b")
        report = stack.apply()
        assert report.warnings == ()
        stack.configurations.register(overlay({"port": 3}), "c")
    return tmp_path


def test_each_apply_leaves_what_is_applied_beside_the_store(applied: Path) -> None:
    store = store_of(applied)
    file = lastgood_path(store)
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"canary" not in file.read_bytes()
    kept = read_lastgood(store)
    assert kept is not None
    assert (kept.head, kept.attempt, kept.source) == (2, 1, "file")
    found = last_applied(store)
    assert (found.head, found.source, found.problem) == (3, "store", "")
    assert found.providers == kept.providers
    assert found.configuration() == {
        "providers": {
            "inference": [
                {
                    "config": {"port": 2, "token": "********"},
                    "provider_id": "acme",
                    "provider_type": "remote::acme",
                }
            ]
        }
    }
    assert next(iter(found.providers.values())).at == found.at != ""


def test_a_damaged_store_leaves_the_file_to_ask(applied: Path) -> None:
    store = store_of(applied)
    whole = last_applied(store).configuration()
    store.write_bytes(b"\0" * 20_000)
    with open_stack(applied, one(), Owner(Config)) as stack:
        found = stack.applied()
    assert (found.source, found.configuration()) == ("file", whole)
    assert "`stackconf store recover`" in found.problem
    store.unlink()
    assert last_applied(store).configuration() == whole
    lastgood_path(store).unlink()
    assert last_applied(store).providers == {}


@pytest.mark.parametrize("change", ["flip", "cut", "garbage", "list", "format"])
def test_a_damaged_file_is_not_believed(applied: Path, change: str) -> None:
    file = lastgood_path(store_of(applied))
    text = file.read_text()
    changed = {
        "flip": text.replace('"port": 2', '"port": 9'),
        "cut": text[:-40],
        "garbage": "\0\xff",
        "list": "[]",
        "format": text.replace('"format": 1', '"format": 7'),
    }[change]
    assert changed != text
    file.write_text(changed)
    with pytest.raises(StoreError, match=r"applied\.json"):
        read_lastgood(store_of(applied))
    assert last_applied(store_of(applied)).source == "store"
    assert not check(store_of(applied)).sound
    with open_stack(applied, one(), Owner(Config)) as stack:
        stack.apply()  # writes it anew
    assert check(store_of(applied)).sound


def test_an_apply_that_changes_nothing_does_not_write(applied: Path) -> None:
    with open_stack(applied, one(), Owner(Config)) as stack:
        stack.apply()
        lastgood_path(store_of(applied)).unlink()
        assert stack.apply().state == "nothing"
    assert not lastgood_path(store_of(applied)).exists()


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"port": 1}))
        lastgood_path(store_of(tmp_path)).mkdir()
        report = stack.apply()
    assert report.state == "applied"
    (warning,) = report.warnings
    assert "is a folder; it does not have what was applied now" in warning


def test_an_old_copy_of_the_store_is_not_applied(applied: Path) -> None:
    store = store_of(applied)
    shutil.copyfile(store, applied / "old")
    with open_stack(applied, one(), Owner(Config)) as stack:
        stack.apply()
        stack.configurations.register(overlay({"port": 4}), "d")
        stack.apply()
    shutil.copyfile(applied / "old", store)
    owner = Owner(Config)
    with open_stack(applied, one(), owner) as stack:
        with pytest.raises(StoreDamaged, match=r"is behind: it ends with revision 3 and attempt 1.*recover"):
            stack.apply()
        assert owner.asked("apply_config") == []
        assert stack.applied().configuration()["providers"]["inference"][0]["config"]["port"] == 4
    done = Stack.recover_store(store)
    assert (done.head, done.lost_revisions) == (5, (4,))
    assert Path(str(done.aside)).read_bytes() == (applied / "old").read_bytes()
    with open_stack(applied, one(), Owner(Config)) as stack:
        (change,) = stack.plan().changes
        assert [(field.before, field.after) for field in change.fields] == [(4, 3)]
        assert stack.apply().state == "applied"


def test_a_store_that_was_removed_is_not_taken_for_a_new_one(applied: Path) -> None:
    store_of(applied).unlink()
    with open_stack(applied, one(), Owner(Config)) as stack, pytest.raises(StoreDamaged, match="is gone"):
        stack.apply()
    assert Stack.recover_store(store_of(applied)).applied == ("inference/acme",)


# Damaged configurations


def by_hand(store: Path, statement: str, *values: object) -> None:
    """As somebody with the sqlite3 program would."""
    with closing(sqlite3.connect(store)) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        db.execute(statement, values)
        db.commit()


BODY = json.dumps({"inference": [{"provider_id": "acme", "provider_type": "", "config": {"port": 3}}]})
DIGEST = "SELECT digest FROM document WHERE body LIKE '%\"port\": 3%'"


@pytest.mark.parametrize(
    "statement",
    [
        f"UPDATE document SET body = 'port: 5' WHERE digest = ({DIGEST})",
        f"UPDATE document SET body = replace(body, '3', '4') WHERE digest = ({DIGEST})",
        f"UPDATE document SET body = x'00ff' WHERE digest = ({DIGEST})",
        f"DELETE FROM document WHERE digest = ({DIGEST})",
    ],
    ids=["no-json", "other", "blob", "gone"],
)
@pytest.mark.parametrize("way_out", ["unassign", "unregister", "register"])
def test_a_configuration_that_was_changed_by_hand_stops_an_apply_only(
    applied: Path, statement: str, way_out: str
) -> None:
    by_hand(store_of(applied), statement)
    owner = Owner(Config)
    with open_stack(applied, one(), owner) as stack:
        (issue,) = (line for line in lines(stack.issues) if "error" in line)
        assert "configuration `c` (revision 3) is damaged: its text" in issue
        assert issue.endswith("register it again, or `stackconf configurations unassign c`")
        assert stack.configurations.inspect()["providers"]["inference"][0]["config"]["port"] == 2
        assert stack.explain("acme", "port")[0].value == 2
        assert stack.plan().errors
        (listed,) = (each for each in stack.configurations.list() if each.name == "c")
        assert listed.description.startswith("damaged: ")
        with pytest.raises(InvalidConfig, match="nothing was applied"):
            stack.apply()
        assert owner.asked("apply_config") == []
        assert stack.applied().configuration()["providers"]["inference"][0]["config"]["port"] == 2
        if way_out == "register":
            stack.configurations.register(overlay({"port": 5}), "c")
        else:
            getattr(stack.configurations, way_out)("c")
        assert stack.plan().errors == ()
        assert stack.apply().state == ("applied" if way_out == "register" else "nothing")
    assert check(store_of(applied)).problems != ()


@pytest.mark.parametrize("body", ['{"inference": 7}', "[]", '{"inference": [{"config": {}}]}', "3"])
def test_a_text_of_another_shape_is_damaged_even_where_its_digest_is_right(applied: Path, body: str) -> None:
    store = store_of(applied)
    with closing(sqlite3.connect(store)) as db:
        (digest,) = db.execute(DIGEST).fetchone()
    by_hand(store, "UPDATE document SET body = ?, digest = ? WHERE digest = ?", body, digest_of(body), digest)
    by_hand(store, "UPDATE revision SET state = replace(state, ?, ?)", digest, digest_of(body))
    by_hand(store, "UPDATE revision SET state = '{' || substr(state, 31) WHERE number = 3")
    with open_stack(applied, one(), Owner(Config)) as stack:
        assert any("`c` (revision 3) is damaged" in line for line in lines(stack.issues))
        stack.configurations.unassign("c")
        assert stack.plan().errors == ()


def test_a_value_that_its_class_takes_no_more_names_the_way_out(applied: Path) -> None:
    with open_stack(applied, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"port": 11}), "d")
    owner = Owner(Strict)
    with open_stack(applied, one(), owner) as stack:
        (issue,) = (line for line in lines(stack.issues) if "error" in line)
        assert "config.port" in issue
        assert "given by configuration `d` (revision 4)" in issue
        assert issue.endswith("`stackconf configurations unassign d`")
        with pytest.raises(InvalidConfig):
            stack.apply()
        assert owner.asked("apply_config") == []
        stack.configurations.unassign("d")
        assert stack.plan().errors == ()
