"""Looking back and going back: history, show, diff, rollback, and what is forgotten."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from core_kit import Owner, one, one_entry, open_stack, overlay
from pydantic import BaseModel, Field, SecretStr

from stackconf import (
    Applied,
    ApplyError,
    Conflict,
    InvalidConfig,
    Sealed,
    StackconfError,
    UnknownName,
    user_field,
)
from stackconf.apply import Report
from stackconf.conflicts import ABSENT, FieldDiff
from stackconf.errors import StoreDamaged
from stackconf.history import number_of
from stackconf.plan import AppliedRecord
from stackconf.store.base import Configuration, State
from stackconf.store.checking import check
from stackconf.store.salvage import recover
from stackconf.store.sqlite import _SCHEMA_1, APPLICATION_ID, SqliteStore
from stackconf.types import Provider


class Config(BaseModel):
    url: str = user_field("http://class")
    port: int = user_field(80, ge=1)
    token: SecretStr | None = user_field(None)


class Strict(BaseModel):
    url: str = user_field("http://class", pattern="^http://class$")
    port: int = Field(80, json_schema_extra={"user_field": True}, le=100)


@pytest.fixture
def stack(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        yield stack


def register(stack, name="default", *, actor="me", assign=True, **config):
    return stack.configurations.register(overlay(config), name, actor=actor, assign=assign).revision


def says(*pairs: tuple[str, dict], assigned: tuple[str, ...] = ()) -> State:
    """A state of the store itself."""
    return State(
        {
            name: Configuration(
                name, {"inference": [{"provider_id": "acme", "provider_type": "t", "config": c}]}
            )
            for name, c in pairs
        },
        assigned,
    )


def append(store, number, state, **options):
    return store.append(number, state, action="register", subject="a", actor="me", **options)


# History


def test_history_lists_revisions_newest_first_without_their_states(stack):
    register(stack, port=1, actor="ada")
    register(stack, port=2, actor="bob")
    stack.rollback(1, actor="cid")
    found = stack.history()
    assert [
        (each.number, each.actor, each.action, each.subject, each.restores) for each in found.revisions
    ] == [
        (3, "cid", "rollback", "revision 1", 1),
        (2, "bob", "register", "default", None),
        (1, "ada", "register", "default", None),
    ]
    assert [each.number for each in stack.history(limit=1).revisions] == [3]
    assert (found.oldest, found.attempts, found.applied) == (1, (), None)


def test_an_attempt_that_failed_says_which_provider_why_and_what_counts_now(tmp_path):
    def applying(provider, config, previous):
        if config.port == 13:
            raise ValueError("no room for 13")
        return Applied(pending="out of reach" if config.port == 14 else None, undo=lambda: None)

    with open_stack(tmp_path, one(), Owner(Config, applying=applying)) as stack:
        register(stack, port=1)
        stack.apply(actor="ada")
        register(stack, port=13)
        with pytest.raises(ApplyError):
            stack.apply(actor="bob")
        register(stack, port=14)
        stack.apply()
        pending, failed, applied = stack.history().attempts
        assert (applied.number, applied.revision, applied.state, applied.actor) == (1, 1, "applied", "ada")
        assert (failed.revision, failed.state, failed.provider, failed.now) == (
            2,
            "failed",
            "inference/acme",
            1,
        )
        assert "no room for 13" in failed.error
        assert not failed.error.startswith("inference/acme")
        assert (pending.state, pending.error, pending.now) == ("pending", "out of reach", 3)
        assert all(0 <= each.seconds < 60 for each in (pending, failed, applied))
        assert stack.history().applied == 3
        assert [each.number for each in stack.history(limit=2).attempts] == [3, 2]


def test_an_attempt_that_was_cut_off_was_taken_over(stack):
    register(stack, port=1)
    stack.apply()
    register(stack, port=2)
    view = stack.store.view()
    with stack.store.applying("me"):
        stack.store.begin(view.revision.number, "killed", [])
    assert [each.state for each in stack.history().attempts] == ["begun", "applied"]
    assert stack.history().applied is None
    stack.apply()
    newest, cut_off, _ = stack.history().attempts
    assert (newest.took_over, newest.now) == (2, 2)
    assert (cut_off.state, cut_off.seconds, cut_off.actor) == ("cut_off", None, "killed")


@pytest.mark.parametrize(
    ("text", "number"),
    [("head", 3), (3, 3), ("3", 3), ("-1", 2), (-1, 2), ("head-1", 2), ("head~2", 1), (0, 0), ("-3", 0)],
)
def test_a_revision_is_named_by_number_or_from_the_head(stack, text, number):
    for port in (1, 2, 3):
        register(stack, port=port)
    assert number_of(stack.store, text) == number == stack.show(text).number


@pytest.mark.parametrize("text", ["-4", "head-4", "4", "HEAD", "", "one", "1.0", "--1", "9" * 30, "head-"])
def test_any_other_name_of_a_revision_is_one_line(stack, text):
    for port in (1, 2, 3):
        register(stack, port=port)
    with pytest.raises(StackconfError) as caught:
        stack.show(text)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


# Show and diff


def test_show_is_what_was_registered_and_assigned(stack):
    register(stack, port=1, token="${env.KEY}")
    register(stack, "night", port=2, assign=False)
    shown = stack.show(2)
    assert shown.state.assigned == ("default",)
    assert shown.state.configurations["default"].providers["inference"][0]["config"] == {
        "port": 1,
        "token": "${env.KEY}",
    }
    assert set(stack.show(1).state.configurations) == {"default"}
    assert stack.show(0).state == State()


def test_show_and_diff_redact_what_should_never_have_been_stored(stack):
    append(stack.store, 0, says(("x", {"token": "hunter2", "url": "http://me:hunter2@db"}), assigned=("x",)))
    append(stack.store, 1, says(("x", {"token": "hunter3", "url": "http://me:hunter3@db"}), assigned=("x",)))
    assert "hunter" not in repr(stack.show(1))
    found = stack.diff(1, 2)
    assert "hunter" not in repr(found)
    assert [each.path for each in found.configurations[0].fields] == ["token", "url"]


def test_diff_tells_fields_and_assignment(stack):
    register(stack, "a", port=1, url="http://a")
    register(stack, "b", port=2)
    register(stack, "c", port=3, assign=False)
    register(stack, "a", port=9, token="${env.KEY}")
    stack.configurations.assign("a")
    stack.configurations.assign("c")
    stack.configurations.unregister("b")
    register(stack, "d", port=4, assign=False)
    found = stack.diff(3, 8)
    assert (found.before, found.after, bool(found)) == (3, 8, True)
    assert {
        each.name: (each.kind, each.assignment, each.before, each.after) for each in found.configurations
    } == {
        "a": ("changed", "same", 1, 1),
        "c": ("same", "assigned", 0, 2),
        "b": ("removed", "unassigned", 2, 0),
        "d": ("added", "same", 0, 0),
    }
    assert next(each for each in found.configurations if each.name == "a").fields == (
        FieldDiff("inference/acme", "port", 1, 9),
        FieldDiff("inference/acme", "url", "http://a", ABSENT),
        FieldDiff("inference/acme", "token", ABSENT, "${env.KEY}"),
    )
    assert not stack.diff(8)
    assert stack.diff(8, 3).configurations[-1].kind == "removed"


def test_diff_names_the_fewest_that_moved(stack):
    for name in "abcd":
        register(stack, name, port=1)
    stack.configurations.assign("a")
    (moved,) = stack.diff("-1").configurations
    assert (moved.name, moved.assignment, moved.before, moved.after) == ("a", "moved", 1, 4)


def test_the_effective_difference_is_of_what_the_providers_would_have(stack, monkeypatch):
    monkeypatch.setenv("ONE", "first-secret")
    monkeypatch.setenv("TWO", "second-secret")
    register(stack, "low", port=1, token="${env.ONE}")
    register(stack, "high", port=2)
    register(stack, "low", port=3, token="${env.TWO}")
    found = stack.diff(2, 3, effective=True)
    (change,) = found.effective
    assert [(field.path, field.before, field.after) for field in change.fields] == [
        ("token", "********", "********")
    ]
    assert "secret" not in repr(found)
    assert (stack.diff(2, 3).effective, found.unresolved) == (None, ())
    (change,) = stack.diff(0, 1, effective=True).effective
    assert [(field.path, field.before, field.after) for field in change.fields][:1] == [("port", 80, 1)]


def test_a_provider_that_is_not_valid_under_one_of_them_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", "k")
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        register(stack, token="${env.KEY}")
    monkeypatch.delenv("KEY")
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        found = stack.diff(0, 1, effective=True)
        assert (found.effective, found.unresolved) == ((), ("inference/acme",))


# Rollback


def test_a_rollback_is_a_new_revision_that_says_what_it_restores(stack):
    register(stack, "a", port=1)
    register(stack, "b", port=2)
    stack.configurations.unregister("a")
    done = stack.rollback(2, actor="ada")
    assert (done.revision, done.restores, done.changed) == (4, 2, True)
    head = stack.store.read()
    assert head.state == stack.store.read(2).state
    assert (head.action, head.actor, head.restores) == ("rollback", "ada", 2)
    assert stack.configurations.inspect()["providers"]["inference"][0]["config"]["port"] == 2
    assert stack.rollback(0).revision == 5
    assert stack.store.read().state == State()


def test_a_rollback_to_what_is_there_makes_no_revision(stack):
    register(stack, port=1)
    register(stack, port=2)
    register(stack, port=1)
    done = stack.rollback(1)
    assert (done.revision, done.restores, done.changed) == (3, 1, False)
    assert stack.revision == 3


def test_a_rollback_that_does_not_fit_any_more_says_all_of_it_and_writes_nothing(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        register(stack, "a", port=200)
        register(stack, "b", url="http://other")
        stack.configurations.unregister("a")
        stack.configurations.unregister("b")
    with open_stack(tmp_path, one(), Owner(Strict)) as stack:
        with pytest.raises(InvalidConfig, match="revision 2 was not restored") as caught:
            stack.rollback(2)
        assert {(issue.path, "`a`" in str(issue), "`b`" in str(issue)) for issue in caught.value.issues} == {
            ("config.port", True, False),
            ("config.url", False, True),
        }
        assert stack.revision == 4
    with open_stack(tmp_path, {"providers": {"inference": []}}, Owner(Strict)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.rollback(1)
        assert "given by configuration `a`" in str(caught.value.issues[0])
        assert stack.revision == 4


def test_a_rollback_does_not_mind_what_was_only_registered(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        register(stack, "a", port=200, assign=False)
        stack.configurations.unregister("a")
    with open_stack(tmp_path, one(), Owner(Strict)) as stack:
        assert stack.rollback(1).revision == 3
        with pytest.raises(InvalidConfig):
            stack.configurations.assign("a")


def test_a_sealed_stack_does_not_go_back(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        register(stack, port=1)
    with open_stack(tmp_path, {**one(), "stackconf": {"sealed": True}}, Owner(Config)) as stack:
        with pytest.raises(Sealed):
            stack.rollback(0)
        assert stack.revision == 1


# Retention


def test_a_stack_that_keeps_three_revisions_has_the_newest_three(tmp_path):
    with open_stack(tmp_path, {**one(), "stackconf": {"keep_revisions": 3}}, Owner(Config)) as stack:
        for port in range(1, 8):
            register(stack, port=port)
        assert [each.number for each in stack.history().revisions] == [7, 6, 5]
        assert [each.number for each in stack.store.follow(0)] == [5, 6, 7]
        assert stack.history().oldest == 5
        for act in (stack.show, stack.diff, stack.rollback):
            with pytest.raises(UnknownName, match="revision 4 was pruned; the oldest kept is 5"):
                act(4)
        assert stack.rollback("head-2").revision == 8
        assert stack.show(8).restores == 5


def test_all_is_kept_unless_the_file_says_otherwise(tmp_path):
    for number, settings in enumerate(({}, {"keep_revisions": "all"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        with open_stack(folder, {**one(), "stackconf": settings}, Owner(Config)) as stack:
            for port in range(1, 6):
                register(stack, port=port)
            assert len(stack.history().revisions) == 5


def test_what_is_in_use_is_not_pruned(tmp_path):
    two = {"providers": {"inference": [one_entry(), {**one_entry(), "provider_id": "other"}]}}
    with open_stack(tmp_path, two, Owner(Config)) as stack:
        register(stack, port=1)
        register(stack, port=2)
        stack.apply()  # both are applied at 2, and only one changes after
        register(stack, port=3)
        stack.apply()
        register(stack, port=4)
        with stack.store.applying("me"):
            stack.store.begin(4, "me", [])
        register(stack, port=5)
        register(stack, port=6)
        gone = stack.prune(1)
        assert (gone.oldest, gone.revisions, gone.pinned) == (6, 2, (2, 3, 4))
        assert [each.number for each in stack.history().revisions] == [6, 4, 3, 2]
        assert stack.show(3).state.configurations["default"].providers["inference"][0]["config"]["port"] == 3
        stack.apply()
        assert stack.prune(1).pinned == (2,)  # `other` still runs with it
        assert [each.state for each in stack.store.attempts()] == ["applied"]
        assert register(stack, port=7) == 7


def test_what_no_revision_says_any_more_is_deleted(tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite3")
    for number in range(20):
        append(
            store,
            number,
            says(("same", {"x": 1}), (f"{number}", {"n": number}), ("often", {"n": number % 2})),
        )
    gone = store.prune(2)
    assert (gone.revisions, gone.oldest) == (18, 19)
    kept = [store.read(number) for number in (19, 20)]
    with sqlite3.connect(store.path) as db:
        bodies = {body for (body,) in db.execute("SELECT body FROM document")}
    db.close()
    assert len(bodies) == 5  # x=1, and n of 18, 19, 0 and 1, which `0` and `1` had too
    assert gone.documents == 16
    assert all(set(each.state.configurations) == {"same", "often", str(each.number - 1)} for each in kept)
    assert store.prune(2) == store.prune(5)
    store.close()


def test_the_room_of_what_was_pruned_is_used_again(tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite3")
    store.keep = 5
    sizes = []
    for number in range(300):
        append(store, number, says(("a", {"text": f"{number:03}" * 300})))
        sizes.append(store._connection.execute("PRAGMA page_count").fetchone()[0])
    assert len(store.revisions()) == 5
    assert sizes[-1] == sizes[50]
    store.close()


def test_pruning_opens_no_door_for_deleting_by_hand(tmp_path):
    store = SqliteStore(tmp_path / "store.sqlite3")
    for number in range(6):
        append(store, number, says(("a", {"n": number})))
    store.prune(3)
    before = list(store.follow(0))
    with sqlite3.connect(store.path) as db:
        for statement in (
            "DELETE FROM revision",
            "DELETE FROM document",
            "UPDATE meta SET value = '1' WHERE key = 'oldest_revision'",
            "UPDATE meta SET value = '7' WHERE key = 'oldest_revision'",
            "DELETE FROM meta WHERE key = 'oldest_revision'",
            "INSERT OR REPLACE INTO meta VALUES ('oldest_revision', '1')",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                db.execute(statement)
        db.execute("INSERT INTO meta VALUES ('pruning', '1')")
        with pytest.raises(sqlite3.IntegrityError, match="never"):
            db.execute("DELETE FROM revision")
        with pytest.raises(sqlite3.IntegrityError, match="next"):
            db.execute("INSERT INTO revision VALUES (3, '', '', '', '', '{}', NULL)")
        db.rollback()
    db.close()
    assert list(store.follow(0)) == before
    store.close()


def test_pruning_needs_something_to_keep(stack):
    assert stack.prune(5).revisions == 0
    assert not stack.store.path.exists()
    with pytest.raises(InvalidConfig, match="keep at least 1"):
        stack.prune(0)
    register(stack, port=1)
    assert stack.prune(10**30).oldest == 1


# The clock


def test_a_revision_never_precedes_the_one_before_it(tmp_path):
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    times = iter([noon, noon - timedelta(hours=3), noon - timedelta(days=400), noon + timedelta(seconds=1)])
    store = SqliteStore(tmp_path / "store.sqlite3", clock=lambda: next(times))
    for number in range(4):
        append(store, number, says(("a", {"n": number})))
    ats = [each.at for each in store.follow(0)]
    assert ats == ["2026-01-01T12:00:00.000Z"] * 3 + ["2026-01-01T12:00:01.000Z"]
    assert all(one <= other for one, other in pairwise(ats))
    store.close()


def test_an_attempt_across_a_clock_that_went_back_has_no_duration(tmp_path):
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    times = iter([noon, noon - timedelta(hours=1)])
    store = SqliteStore(tmp_path / "store.sqlite3", clock=lambda: next(times))
    with open_stack(tmp_path, one(), Owner(Config), store=store) as stack:
        with store.applying("me"):
            number = store.begin(0, "me", [])
            store.finish(number, Report("applied", (), 0, number), {}, [])
        (attempt,) = stack.history().attempts
        assert (attempt.state, attempt.seconds) == ("applied", None)


# An older store


def test_a_store_of_the_first_version_is_read_and_goes_on(tmp_path):
    path = tmp_path / "store.sqlite3"
    with sqlite3.connect(path) as db:
        db.executescript(_SCHEMA_1)
        db.execute("INSERT INTO meta VALUES ('digest-key', ?)", (b"k" * 32,))
        for number in (1, 2, 3):
            row = (number, "2026-01-01T12:00:00.000Z", "me", "register", "a")
            db.execute(
                "INSERT INTO revision VALUES (?, ?, ?, ?, ?, ?)",
                (*row, '{"configurations": {}, "assigned": []}'),
            )
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute("PRAGMA user_version = 1")
    db.close()
    store = SqliteStore(path)
    assert [(each.number, each.restores) for each in store.revisions()] == [(3, None), (2, None), (1, None)]
    store.keep = 2
    assert append(store, 3, says(("a", {})), restores=1).restores == 1
    assert (store.oldest(), store.read().restores) == (3, 1)
    store.close()


# A damaged one


def test_a_pruned_store_is_sound_and_is_recovered_with_what_it_kept(tmp_path):
    path = tmp_path / "store.sqlite3"
    store = SqliteStore(path)
    provider = Provider("inference", "acme", "t")
    for number in range(6):
        append(store, number, says(("a", {"n": number}), assigned=("a",)))
        if number == 1:
            with store.applying("me"):
                attempt = store.begin(2, "me", [])
                report = Report("applied", (), 2, attempt)
                store.finish(attempt, report, {provider.key: AppliedRecord(provider, 2, {"n": 1})}, [])
    assert store.prune(2).pinned == (2,)
    store.close()
    assert check(path).problems == ()
    data = bytearray(path.read_bytes())
    data[68:72] = b"\0\0\0\7"  # the mark in the header: another program's
    path.write_bytes(data)
    with pytest.raises(StoreDamaged):
        store.head()
    store.close()
    found = recover(path, actor="me")
    assert (found.head, found.lost_revisions) == (6, ())
    assert check(path).problems == ()
    assert [each.number for each in store.revisions()] == [6, 5, 2]
    assert (store.oldest(), [each.number for each in store.follow(0)]) == (5, [5, 6])
    with pytest.raises(UnknownName, match="revision 3 was pruned; the oldest kept is 5"):
        store.read(3)
    assert append(store, 6, says(("a", {"n": 9}))).number == 7
    store.close()


def test_numbers_that_no_store_can_hold_are_no_revisions(tmp_path):
    beyond = 10**30
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"url": "http://x"}))
        for call in (lambda: stack.show(beyond), lambda: stack.rollback(-beyond)):
            with pytest.raises(UnknownName, match="no revision"):
                call()
        for on_conflict in ("refuse", "retry"):
            with pytest.raises(Conflict, match="but the head is 1"):
                stack.configurations.assign("default", expected_revision=beyond, on_conflict=on_conflict)
        assert len(stack.history(limit=beyond).revisions) == 1
