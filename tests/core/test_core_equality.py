"""What counts as the same, and what is therefore left alone or applied.

What these tests show not to happen: equal values at two places that are taken for each other, so that
an apply goes round for ever or does nothing; something unchanged that counts as changed because it is
another object; an empty list that counts as none; a change that is accepted and then dropped; an
answer that says success for what would not survive.
"""

from __future__ import annotations

import pytest
from core_kit import Owner, one, open_stack, overlay
from pydantic import BaseModel, Field

from stackconf import StoreError, user_field
from stackconf.store.sqlite import SqliteStore
from stackconf.testing import machine


class Inner(BaseModel):
    size: int = user_field(1)
    tags: list[str] = user_field(default_factory=list)


class Config(BaseModel):
    size: int = user_field(1)
    tags: list[str] = user_field(default_factory=list)
    inner: Inner = Field(default_factory=Inner)
    other: Inner = Field(default_factory=Inner)
    free: dict[str, object] = user_field(default_factory=dict)


LOOKALIKES = [
    {"size": 2},
    {"inner": {"size": 2}},
    {"other": {"size": 2}},
    {"tags": ["inner"]},
    {"inner": {"tags": ["inner"]}},
    {"tags": ["inner", ""]},
    {"tags": ["", "inner"]},
    {"free": {"a": 1}},
    {"free": {"a": 1.5}},
    {"free": {"a": True}},
    {"free": {"a": "1"}},
    {"free": {"a": None}},
    {"free": {"a": []}},
    {"free": {"a": {}}},
    {"free": {"b": 1}},
    {"free": {"a": {"b": 1}}},
    {"free": {"a.b": 1}},
    {},
]


def test_equal_values_at_different_places_are_different_configurations_each_applied_once(tmp_path):
    given = []
    owner = Owner(Config, applying=lambda provider, config, previous: given.append(config))
    for config in LOOKALIKES:
        with open_stack(tmp_path, one(config), owner) as stack:
            before = len(given)
            assert stack.apply().state == "applied"
            assert len(given) == before + 1
            assert given[-1] == Config(**config)
            assert stack.apply().state == "nothing"
        with open_stack(tmp_path, one(config), owner) as stack:  # as another process sees it
            assert stack.apply().state == "nothing"
            assert len(given) == before + 1


@pytest.mark.parametrize("config", LOOKALIKES)
def test_what_is_equal_counts_as_equal_whatever_object_it_is(tmp_path, config):
    """Other objects: of the configuration, of the machine, of the stack, of the order of keys."""
    with open_stack(tmp_path, one(config), Owner(Config), hardware=machine()) as stack:
        stack.apply()
        fingerprint = stack.plan().hardware_fingerprint
    again = dict(reversed(config.items()))
    with open_stack(tmp_path, one(again), Owner(Config), hardware=machine()) as stack:
        assert not stack.plan()
        assert stack.plan().hardware_fingerprint == fingerprint
        values = {name: value for name, value in config.items() if name not in {"inner", "other"}}
        if values:
            stack.configurations.register(overlay(values))
            assert not stack.plan()
            before = stack.revision
            stack.configurations.register(overlay(dict(values)))
            assert stack.revision == before


def test_an_empty_list_is_a_value_and_no_device_is_an_answer(tmp_path):
    given = []
    owner = Owner(Config, applying=lambda provider, config, previous: given.append(config.tags))
    bare = machine(accelerators=())
    assert list(bare.accelerators) == []
    with open_stack(tmp_path, one({"tags": ["a"]}), owner, hardware=bare) as stack:
        stack.apply()
        stack.configurations.register(overlay({"tags": []}))
        assert stack.apply().state == "applied"
        assert given == [["a"], []]
        assert stack.apply().state == "nothing"


def test_what_is_registered_is_shown_as_not_applied_until_it_is(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.apply()
        registered = stack.configurations.register(overlay({"size": 9, "inner": {"size": 7}}))
        assert registered.dropped == ()
        assert {field.path: field.after for field in registered.plan.changes[0].fields} == {
            "size": 9,
            "inner.size": 7,
        }
        assert stack.store.applied()["inference/acme"].snapshot["size"] == 1
        stack.apply()
        assert stack.store.applied()["inference/acme"].snapshot["size"] == 9


class ReadOnly(SqliteStore):
    """A store on a disk that takes no more writes."""

    def _writing(self):
        raise StoreError(f"store {self.path}: attempt to write a readonly database")


def test_what_cannot_be_kept_is_not_called_registered(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        stack.configurations.register(overlay({"size": 2}), name="kept")
        path = stack.store.path
    with open_stack(tmp_path, one(), Owner(Config), store=ReadOnly(path)) as stack:
        for act in (
            lambda: stack.configurations.register(overlay({"size": 3})),
            lambda: stack.configurations.unregister("kept"),
            stack.apply,
        ):
            with pytest.raises(StoreError, match="readonly"):
                act()
        assert [each.name for each in stack.configurations.list()] == ["kept"]
        assert stack.resolution.providers["inference/acme"].config.size == 2
