"""Layers: how they merge, what an overlay may reach, and that it is the same every time."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import pytest
from core_kit import Owner, effective, lines, one, open_stack, overlay, registry_of
from core_models import config_and_data, hidden_parts, outline
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from stackconf import Provider, user_field
from stackconf.fields import plan_of
from stackconf.resolve.layers import canonical, leaves, merge, value_at
from stackconf.resolve.projection import project
from stackconf.resolve.render import SHOWN, USERS
from stackconf.resolve.resolve import Overlay, resolve_provider
from stackconf.testing import machine

PROVIDER = Provider("inference", "acme", "remote::acme")

scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=3)
leaf_values = scalars | st.lists(scalars, max_size=2)


def mappings(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Layers of one shape: `x` and `y` are leaves wherever they stand, `m` and `n` are mappings."""
    shape: dict[str, Any] = {"x": leaf_values, "y": leaf_values}
    if depth:
        shape |= {"m": mappings(depth - 1), "n": mappings(depth - 1)}
    return st.fixed_dictionaries({}, optional=shape)


layers = mappings(2)


@given(layers, layers, layers)
def test_merging_plain_mappings_is_associative(low, middle, high):
    assert merge(merge(low, middle), high) == merge(low, merge(middle, high))


def test_a_null_between_two_mappings_clears_the_lower_one_so_layers_are_merged_from_below(tmp_path):
    class Config(BaseModel):
        options: dict[str, int] | None = user_field({"a": 1})

    with open_stack(tmp_path, one({"options": {"b": 2}}), Owner(Config)) as stack:
        stack.configurations.register(overlay({"options": None}), name="cleared")
        assert effective(stack).options is None
        stack.configurations.register(overlay({"options": {"c": 3}}), name="anew")
        assert "b" not in effective(stack).options
        assert effective(stack).options["c"] == 3


@given(layers, layers)
def test_merging_changes_neither_layer_and_keeps_every_leaf_of_the_upper_one(low, high):
    before = json.dumps([low, high])
    merged = merge(low, high)
    assert json.dumps([low, high]) == before
    for path, value in leaves(high):
        if path and value != {}:
            assert value_at(merged, path) == value


@given(layers)
def test_the_empty_layer_changes_nothing(layer):
    assert merge({}, layer) == merge(layer, {}) == merge(layer, layer) == layer


class Sqlite(BaseModel):
    kind: Literal["sqlite"] = "sqlite"
    path: str = user_field("/var/lib/acme.db")
    pages: int = 5


class Postgres(BaseModel):
    kind: Literal["postgres"] = "postgres"
    host: str = user_field("localhost")
    path: str = "public"
    password: SecretStr | None = None


class Stored(BaseModel):
    kv: Annotated[Sqlite | Postgres, Field(discriminator="kind", json_schema_extra={"user_field": True})] = (
        Sqlite()
    )


def test_a_changed_tag_replaces_the_mapping_and_is_the_one_exception_to_associativity():
    plan = plan_of(Stored)
    low = {"kv": {"kind": "sqlite", "path": "a"}}
    middle = {"kv": {"kind": "postgres"}}
    high = {"kv": {"kind": "sqlite"}}
    assert merge(low, middle, plan) == middle
    assert merge(merge(low, middle, plan), high, plan) == {"kv": {"kind": "sqlite"}}
    assert merge(low, merge(middle, high, plan), plan) == {"kv": {"kind": "sqlite", "path": "a"}}


# What an overlay may reach


@pytest.mark.exhaustive
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(config_and_data())
def test_an_overlay_never_reaches_a_non_user_field(case):
    config_class, stack_values, overlays = case
    note(outline(config_class))
    registry = registry_of(Owner(config_class))
    alone = resolve_provider(PROVIDER, registry, machine(), stack_values=stack_values)
    if alone.config is None:
        return
    taken = tuple(Overlay(f"o{number}", number, values) for number, values in enumerate(overlays))
    overlaid = resolve_provider(PROVIDER, registry, machine(), stack_values=stack_values, overlays=taken)
    if overlaid.config is None:
        assert all("given by configuration" in str(issue) for issue in overlaid.issues), lines(
            overlaid.issues
        )
        return
    before, after = hidden_parts(alone.config), hidden_parts(overlaid.config)
    assert {path: after.get(path) for path in before} == before
    for path in after.keys() - before.keys():  # in a model that the user was free to bring in
        value, default = after[path]
        assert value == default


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(config_and_data())
def test_every_path_of_an_overlay_is_kept_or_reported_and_never_both(case):
    config_class, stack_values, overlays = case
    note(outline(config_class))
    plan = plan_of(config_class)
    base = canonical(stack_values, plan)
    for values in overlays:
        kept, dropped = project(values, plan, base)
        reported = [each.path for each in dropped]
        assert len(reported) == len(set(reported))
        for path in _leaf_paths(values):
            covered = [each for each in reported if path[: len(each)] == each]
            assert len(covered) <= 1, (path, covered)
            if not covered:
                found = value_at(kept, _path_in_kept(path, reported), "not there")
                assert found == value_at(values, path), (path, kept, reported)
        for each in reported:
            assert value_at(values, each, "nothing") != "nothing"
        assert len(_leaf_paths(kept)) <= len(_leaf_paths(values))


def test_an_item_of_a_list_of_which_nothing_is_left_keeps_its_place():
    class Item(BaseModel):
        name: str = user_field("")
        secret_port: int = Field(0, json_schema_extra={"user_field": False})

    class Config(BaseModel):
        items: list[Item] = user_field([])

    overlay = {"items": [{"secret_port": 1}, {"name": "b"}]}
    kept, dropped = project(overlay, plan_of(Config))
    assert kept == {"items": [{}, {"name": "b"}]}
    assert [each.path for each in dropped] == [("items", 0, "secret_port")]


def _leaf_paths(data: Any, above: tuple = ()) -> list[tuple]:
    if isinstance(data, dict) and data:
        return [path for key, value in data.items() for path in _leaf_paths(value, (*above, key))]
    if isinstance(data, list) and data:
        return [path for key, value in enumerate(data) for path in _leaf_paths(value, (*above, key))]
    return [above] if above else []


def _path_in_kept(path: tuple, reported: list[tuple]) -> tuple:
    """Where a value of an overlay stands in what was kept: under its field's name, and in a list
    behind only those items that were not dropped.
    """
    found: tuple = ()
    for length, step in enumerate(path):
        if isinstance(step, int):
            before = [(*path[:length], index) for index in range(step)]
            found = (*found, step - sum(each in reported for each in before))
        else:
            found = (*found, step.removesuffix("Alias"))
    return found


@pytest.mark.exhaustive
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(config_and_data())
def test_resolving_twice_gives_the_same_bytes_and_plans_nothing(case):
    config_class, stack_values, overlays = case
    note(outline(config_class))
    taken = tuple(Overlay(f"o{number}", number, values) for number, values in enumerate(overlays))

    def resolved():
        registry = registry_of(Owner(config_class))
        found = resolve_provider(PROVIDER, registry, machine(), stack_values=stack_values, overlays=taken)
        shown = None if found.config is None else SHOWN.render(found.config)
        return json.dumps([shown, lines(found.issues)])

    assert resolved() == resolved()


@pytest.mark.exhaustive
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(config_and_data())
def test_what_inspect_shows_can_be_sent_back_and_changes_nothing(case):
    config_class, stack_values, _ = case
    note(outline(config_class))
    registry = registry_of(Owner(config_class))
    alone = resolve_provider(PROVIDER, registry, machine(), stack_values=stack_values)
    if alone.config is None:
        return
    shown = USERS.render(alone.config)
    again = resolve_provider(
        PROVIDER, registry, machine(), stack_values=stack_values, overlays=(Overlay("same", 1, shown),)
    )
    assert again.config is not None, lines(again.issues)
    # Of all that is shown only a list can be refused: one with fields in it that are not shown.
    assert {type(value_at(shown, each.path)) for each in again.overlays[0].dropped} <= {list}
    assert SHOWN.render(again.config) == SHOWN.render(alone.config)
