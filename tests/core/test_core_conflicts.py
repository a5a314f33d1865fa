"""Two people change one configuration: nothing of either is lost in silence."""

from __future__ import annotations

from typing import Any

import pytest
from core_kit import Owner, one, open_stack, overlay
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from stackconf import Conflict, InvalidConfig, Stack, UnknownName, user_field
from stackconf.conflicts import ABSENT, Expected, differences, merge_three
from stackconf.resolve.layers import value_at

# The pure part

KEYS = st.sampled_from(("a", "b", "c"))
SCALARS = st.sampled_from((None, False, True, 0, 1, 1.5, "x", "y"))
LEAVES = st.one_of(SCALARS, st.lists(SCALARS, max_size=2), st.just({}))
CONFIGS = st.dictionaries(
    KEYS,
    st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=5),
    max_size=3,
)
SAYS = st.dictionaries(st.sampled_from(("x/one", "x/two", "y/one")), CONFIGS, max_size=3)
GIVEN = st.one_of(st.just(ABSENT), SAYS)


def providers(says: Any) -> Any:
    """In the stack file's shape."""
    if says is ABSENT:
        return ABSENT
    listed: dict[str, list[dict[str, Any]]] = {}
    for key, config in says.items():
        api, name = key.split("/")
        listed.setdefault(api, []).append({"provider_id": name, "provider_type": "t", "config": config})
    return listed


def by_key(merged: Any) -> Any:
    if merged is ABSENT:
        return ABSENT
    return {f"{api}/{each['provider_id']}": each["config"] for api, all_ in merged.items() for each in all_}


def leaves(value: Any, above: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], str]:
    """Every leaf by its path, told apart by type as well."""
    if isinstance(value, dict) and value:
        found = {}
        for key, inner in value.items():
            found |= leaves(inner, (*above, key))
        return found
    return {} if value is ABSENT else {above: repr(value)}


def changed(before: Any, after: Any) -> dict[tuple[Any, ...], str | None]:
    """The scalars and lists that one side gave or took away."""
    old, new = leaves(before), leaves(after)
    return {
        path: new.get(path)
        for path in {**old, **new}
        if old.get(path) != new.get(path) and "{}" not in {old.get(path), new.get(path)}
    }


def merge(base: Any, theirs: Any, mine: Any):
    merged = merge_three(providers(base), providers(theirs), providers(mine))
    clashes = [(provider, *path) if provider else () for provider, path in merged.clashes]
    return by_key(merged.providers), clashes


def covered(path: tuple[Any, ...], clashes: list[tuple[Any, ...]]) -> bool:
    return any(path[: len(each)] == each[: len(path)] for each in clashes)


@given(GIVEN, GIVEN, GIVEN)
def test_what_one_side_changed_is_there_or_a_clash_says_so(base, theirs, mine):
    before = [leaves(each) for each in (base, theirs, mine)]
    merged, clashes = merge(base, theirs, mine)
    there = leaves(merged)
    for path, value in changed(base, theirs).items():
        assert there.get(path) == value or covered(path, clashes), path
    for path, value in changed(base, mine).items():
        assert there.get(path) == value or covered(path, clashes), path
    assert [leaves(each) for each in (base, theirs, mine)] == before


@given(GIVEN, GIVEN, GIVEN)
def test_a_clash_is_a_leaf_that_both_changed_to_something_else(base, theirs, mine):
    _, clashes = merge(base, theirs, mine)
    _, mirrored = merge(base, mine, theirs)
    assert sorted(clashes, key=str) == sorted(mirrored, key=str)
    for path in clashes:
        values = [value_at(each, path, ABSENT) if path else each for each in (base, theirs, mine)]
        assert len({repr(each) for each in values}) == 3, path


@given(GIVEN, GIVEN)
def test_what_only_one_side_changed_is_taken_whole(base, other):
    assert merge(base, base, other) == (other, [])
    assert merge(base, other, base) == (other, [])
    assert merge(base, other, other) == (other, [])


@given(GIVEN, GIVEN, GIVEN)
def test_merging_again_changes_nothing(base, theirs, mine):
    merged, clashes = merge(base, theirs, mine)
    if not clashes:
        assert merge(base, theirs, merged) == (merged, [])
        assert merge(theirs, theirs, merged) == (merged, [])


@given(CONFIGS, CONFIGS, CONFIGS)
def test_changes_of_different_fields_never_clash(base, theirs, mine):
    split = [
        {f"{key}{number}": value for key, value in each.items()} for number, each in enumerate((theirs, mine))
    ]
    merged, clashes = merge({"x/one": base}, {"x/one": {**base, **split[0]}}, {"x/one": {**base, **split[1]}})
    assert clashes == []
    assert merged == {"x/one": {**base, **split[0], **split[1]}}


@given(GIVEN, GIVEN)
def test_a_difference_tells_every_leaf_and_nothing_else(before, after):
    told = {
        (each.provider, each.path): (repr(each.before), repr(each.after))
        for each in differences(providers(before), providers(after))
    }
    old, new = leaves(before), leaves(after)
    assert bool(told) == (old != new or (before is ABSENT) != (after is ABSENT))
    for one_, other in told.values():
        assert one_ != other


# On a stack


class Config(BaseModel):
    url: str = user_field("http://class")
    port: int = user_field(80, ge=1)
    threads: int = user_field(1, le=64)
    token: SecretStr | None = user_field(None)


@pytest.fixture
def stack(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        yield stack


def register(stack: Stack, actor: str = "me", name: str = "default", **config: Any):
    options = {
        key: config.pop(key) for key in ("expected_revision", "on_conflict", "assign") if key in config
    }
    return stack.configurations.register(overlay(config), name, actor=actor, **options)


def says(stack: Stack, name: str = "default") -> dict[str, Any]:
    return stack.configurations.get(name).providers["inference"][0]["config"]


def test_a_conflict_says_who_changed_what_and_what_you_say(stack):
    register(stack, "ada", url="http://a", port=1)
    register(stack, "bob", url="http://b", port=1, threads=2)
    register(stack, "cid", url="http://c", port=1, threads=2)
    with pytest.raises(Conflict) as caught:
        register(stack, url="http://mine", port=5, expected_revision=1)
    error = caught.value
    assert str(error) == (
        "expected revision 1, but the head is 3;"
        " 1 field of `default` changed meanwhile to something else than yours"
    )
    assert [
        (each.path, each.before, each.theirs, each.mine, each.clashes, each.revision, each.actor, each.action)
        for each in error.conflicts
    ] == [
        ("url", "http://a", "http://c", "http://mine", True, 3, "cid", "register"),
        ("threads", ABSENT, 2, ABSENT, False, 2, "bob", "register"),
    ]
    assert {(each.provider, each.configuration, each.subject) for each in error.conflicts} == {
        ("inference/acme", "default", "default")
    }
    assert [(each.number, each.actor) for each in error.since] == [(2, "bob"), (3, "cid")]
    assert all(each.at == stack.store.read(each.revision).at for each in error.conflicts)
    assert stack.revision == 3


def test_a_retry_takes_what_only_one_side_changed(stack):
    register(stack, url="http://a", port=1)
    register(stack, "bob", url="http://b", port=1, threads=2)
    registered = register(stack, url="http://a", port=5, expected_revision=1, on_conflict="retry")
    assert says(stack) == {"url": "http://b", "port": 5, "threads": 2}
    assert registered.kept["inference"][0]["config"] == says(stack)
    assert registered.revision == 3


def test_a_retry_refuses_a_clash_and_writes_nothing(stack):
    register(stack, url="http://a")
    register(stack, "bob", url="http://b")
    with pytest.raises(Conflict) as caught:
        register(stack, url="http://c", port=5, expected_revision=1, on_conflict="retry")
    assert [(each.path, each.theirs, each.mine) for each in caught.value.conflicts] == [
        ("url", "http://b", "http://c")
    ]
    assert (stack.revision, says(stack)) == (2, {"url": "http://b"})


def test_force_replaces(stack):
    register(stack, url="http://a", port=1)
    register(stack, "bob", url="http://b", threads=4)
    register(stack, url="http://c", expected_revision=1, on_conflict="force")
    assert says(stack) == {"url": "http://c"}


def test_the_merged_configuration_is_checked_as_any_other(tmp_path):
    def findings(provider, user_config, config, hardware):
        if config.port + config.threads > 50:
            raise ValueError("too much together")
        return []

    with open_stack(tmp_path, one(), Owner(Config, findings=findings)) as stack:
        register(stack, port=10, threads=10)
        register(stack, "bob", port=40, threads=10)
        with pytest.raises(InvalidConfig, match="not registered"):
            register(stack, port=10, threads=40, expected_revision=1, on_conflict="retry")
        assert stack.revision == 2


def test_a_retry_keeps_what_others_assigned_or_not(stack):
    register(stack, url="http://a", port=1)
    stack.configurations.unassign("default", actor="bob")
    register(stack, url="http://b", port=1, expected_revision=1, on_conflict="retry")
    assert stack.store.read().state.assigned == ()
    assert says(stack)["url"] == "http://b"


def test_what_somebody_forgot_is_not_registered_again_by_a_retry(stack):
    register(stack, url="http://a")
    stack.configurations.unregister("default", actor="bob")
    for config in ({"url": "http://a"}, {"url": "http://b"}):
        with pytest.raises(Conflict) as caught:
            register(stack, **config, expected_revision=1, on_conflict="retry")
        (field,) = caught.value.conflicts
        assert (field.theirs, field.actor, field.action) == (ABSENT, "bob", "unregister")


def test_unregistering_what_somebody_changed_is_refused_also_by_a_retry(stack):
    register(stack, url="http://a")
    register(stack, "bob", url="http://b")
    for how in ("refuse", "retry"):
        with pytest.raises(Conflict) as caught:
            stack.configurations.unregister("default", expected_revision=1, on_conflict=how)
        (field,) = caught.value.conflicts
        assert (field.theirs, field.mine, field.clashes) == ("http://b", ABSENT, True)
    assert stack.configurations.unregister("default", expected_revision=1, on_conflict="force") == 3


def test_the_same_change_by_both_is_fine(stack):
    register(stack, url="http://a")
    register(stack, "bob", url="http://b")
    assert register(stack, url="http://b", expected_revision=1, on_conflict="retry").revision == 2
    stack.configurations.unassign("default", actor="bob")
    assert stack.configurations.unassign("default", expected_revision=2, on_conflict="retry") == 3
    stack.configurations.unregister("default", actor="bob")
    assert stack.configurations.unregister("default", expected_revision=3, on_conflict="retry") == 4


def test_assigning_goes_on_with_what_is_there_now(stack):
    register(stack, url="http://a", assign=False)
    register(stack, "bob", url="http://b", assign=False)
    with pytest.raises(Conflict, match="none that you change"):
        stack.configurations.assign("default", expected_revision=1)
    assert stack.configurations.assign("default", expected_revision=1, on_conflict="retry") == 3
    assert stack.store.read().state.assigned == ("default",)


def test_a_conflict_about_another_configuration_says_that_yours_is_as_it_was(stack):
    register(stack, url="http://a")
    register(stack, "bob", name="other", url="http://b")
    with pytest.raises(Conflict, match="`default` is as it was") as caught:
        register(stack, url="http://c", expected_revision=1)
    assert caught.value.conflicts == ()
    assert register(stack, url="http://c", expected_revision=1, on_conflict="retry").revision == 3


@pytest.mark.parametrize("how", ["refuse", "retry"])
def test_what_cannot_be_compared_is_refused(stack, how):
    register(stack, url="http://a")
    register(stack, url="http://b")
    with pytest.raises(Conflict, match="expected revision 9, but the head is 2; read it and try again"):
        register(stack, url="http://c", expected_revision=9, on_conflict=how)
    stack.prune(1)
    with pytest.raises(Conflict, match="revision 1 was pruned; the oldest kept is 2"):
        register(stack, url="http://c", expected_revision=1, on_conflict=how)
    assert register(stack, url="http://c", expected_revision=1, on_conflict="force").revision == 3


def test_a_conflict_shows_references_and_no_secret(stack):
    register(stack, token="${env.ONE}")
    register(stack, "bob", token="${env.TWO}")
    with pytest.raises(Conflict) as caught:
        register(stack, token="${file:/run/three}", expected_revision=1)
    (field,) = caught.value.conflicts
    assert (field.before, field.theirs, field.mine) == ("${env.ONE}", "${env.TWO}", "${file:/run/three}")
    (shown,) = differences(
        {"x": [{"provider_id": "one", "config": {"token": "a", "free": {"k": ["--api-key", "b"]}}}]},
        {"x": [{"provider_id": "one", "config": {"token": "hunter2", "free": {"k": ["--api-key", "b"]}}}]},
    )
    assert "hunter2" not in repr(shown)


def test_a_word_that_is_no_choice_is_refused():
    with pytest.raises(InvalidConfig, match="on_conflict is one of refuse, retry, force, not 'merge'"):
        Expected(1, "merge")


def test_rolling_back_is_that_revision_or_none(stack):
    register(stack, url="http://a")
    register(stack, "bob", url="http://b")
    with pytest.raises(Conflict) as caught:
        stack.rollback(0, expected_revision=1)
    assert not caught.value.mergeable
    assert [(each.path, each.theirs, each.mine) for each in caught.value.conflicts] == [
        ("url", "http://b", ABSENT)
    ]
    with pytest.raises(UnknownName):
        stack.rollback(7)
    assert stack.revision == 2
