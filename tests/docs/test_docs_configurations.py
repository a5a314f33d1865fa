from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
from docs_kit import blocks, page, section
from pydantic import BaseModel, ConfigDict, Field

from stackconf import ProviderType, Stack, user_field
from stackconf.registry.registry import Registry
from stackconf.testing import machine, stack_with

PAGE = page("configurations.md")


class Item(BaseModel):
    theirs: int = user_field(0)
    ours: int = 0


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int = 0


class Config(BaseModel):
    labelled: Item = user_field(Item())
    open_but_one: Loose = user_field(Loose())
    unlabelled: Item = Item()
    labelled_list: list[Item] = user_field([])
    unlabelled_list: list[Item] = []
    mapping: dict[str, Item] = {}
    renamed: int = Field(0, alias="other-name", json_schema_extra={"user_field": True})


class Plugin:
    provides = (ProviderType("inference", "remote::acme", Config),)


@contextmanager
def registered(config, **below):
    entry = {"provider_id": "acme", "provider_type": "remote::acme", "config": below}
    with stack_with([Plugin()], {"inference": [entry]}) as stack:
        result = stack.configurations.register(
            {"inference": [{"provider_id": "acme", "config": {"labelled": {"theirs": 1}, **config}}]}
        )
        yield result.kept["inference"][0]["config"], [issue.path for issue in result.dropped]


@pytest.mark.parametrize(
    ("config", "kept", "dropped"),
    [
        ({"labelled": {"ours": 1}}, {"labelled": {"ours": 1}}, []),
        ({"open_but_one": {"new": 1}}, {"open_but_one": {"new": 1}}, []),
        ({"unlabelled": {"theirs": 1, "ours": 1}}, {"unlabelled": {"theirs": 1}}, ["config.unlabelled.ours"]),
        ({"labelled_list": [{"ours": 1}]}, {"labelled_list": [{"ours": 1}]}, []),
        ({"unlabelled_list": [{"theirs": 1}]}, {}, ["config.unlabelled_list"]),
        ({"other-name": 3}, {"renamed": 3}, []),
        ({"renamed": 3}, {"renamed": 3}, []),
        ({"new": 3}, {}, ["config.new"]),
    ],
)
def test_the_table_of_how_labels_reach_down_is_right(config, kept, dropped):
    with registered(config) as (taken, left):
        assert {name: value for name, value in taken.items() if name in kept} == kept
        assert taken.keys() - kept.keys() <= {"labelled"}
        assert left == dropped


def test_below_a_mapping_without_a_label_users_change_what_is_there_and_add_nothing():
    config = {"mapping": {"a": {"theirs": 1, "ours": 1}, "b": {"theirs": 1}}}
    with registered(config, mapping={"a": {}}) as (taken, left):
        assert taken["mapping"] == {"a": {"theirs": 1}}
        assert left == ["config.mapping.a.ours", "config.mapping.b"]


class Threads(BaseModel):
    threads: int = user_field(1)


class Acme:
    provides = (ProviderType("inference", "remote::acme", Threads),)


def test_a_distribution_ships_configurations_as_the_page_shows(tmp_path, monkeypatch):
    toml, yaml = (block.text for block in blocks(section(PAGE, "Shipped configurations")))
    (name, target) = toml.split("\n")[1].split(" = ")
    package = tmp_path / target.strip('"')
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    (package / "one-card.yaml").write_text(yaml, encoding="utf-8")
    info = tmp_path / "acme_profiles-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-profiles\nVersion: 1.0\n", "utf-8")
    group = toml.split("\n")[0].removeprefix('[project.entry-points."').removesuffix('"]')
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target.strip(chr(34))}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "stack.yaml"
    entry = {"provider_id": "acme", "provider_type": "remote::acme"}
    file.write_text(json.dumps({"providers": {"inference": [entry]}}), encoding="utf-8")
    with Stack.open(file, registry=Registry(plugins=[Acme()]), hardware=machine()) as stack:
        shipped = {each.name: each for each in stack.configurations.list()}["acme/one-card"]
        assert (shipped.source, shipped.assigned) == ("acme-profiles 1.0", 0)
        assert shipped.description == "One card with 80 GB"
        stack.configurations.assign("acme/one-card")
        (origin,) = stack.explain("acme", "threads")
        assert (origin.value, origin.layer) == (4, "overlay")
        (package / "one-card.yaml").write_text(yaml.replace("4", "9"), encoding="utf-8")
    with Stack.open(file, registry=Registry(plugins=[Acme()]), hardware=machine()) as stack:
        assert stack.explain("acme", "threads")[0].value == 4
        stack.configurations.unassign("acme/one-card")
        stack.configurations.assign("acme/one-card")
        assert stack.explain("acme", "threads")[0].value == 9
