"""Where each value came from: the winner, what it beat, why, and where that is written."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from core_kit import Owner, effective, one, open_stack, overlay
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field

from stackconf import UnknownName, because, hookimpl, user_field
from stackconf.fields import labels_at, plan_of, user_paths
from stackconf.resolve.layers import merge, over_class_defaults


class Inner(BaseModel):
    size: int = user_field(1, update="in_place")
    depth: int = 2


class Sqlite(BaseModel):
    kind: Literal["sqlite"] = "sqlite"
    path: str = "/var/db"


class Postgres(BaseModel):
    kind: Literal["postgres"] = "postgres"
    host: str = "localhost"
    path: str = "public"


class Config(BaseModel):
    port: int = user_field(80, update="reload")
    name: str | None = user_field("class")
    inner: Inner = Inner(size=3)
    options: dict[str, int] | None = user_field({"a": 1})
    tags: list[str] = user_field(["x"])
    store: Annotated[Sqlite | Postgres, Field(discriminator="kind")] = user_field(Sqlite())


DEFAULTS = {"port": because(81, "one a core"), "inner": {"size": because(4, "they fit")}}


def test_every_layer_is_told_highest_first_with_its_reason_and_its_place(tmp_path):
    data = one({"port": 82, "inner": {"size": 5}})
    with open_stack(tmp_path, data, Owner(Config, defaults=DEFAULTS)) as stack:
        stack.configurations.register(overlay({"port": 83}), name="first")
        stack.configurations.register(overlay({"port": 84}), name="second")
        (port,) = stack.explain("acme", "port")
        chain = [port, *port.beat]
        assert [(each.layer, each.value) for each in chain] == [
            ("overlay", 84),
            ("overlay", 83),
            ("stack", 82),
            ("hardware", 81),
            ("class", 80),
        ]
        assert chain[0].source == "configuration `second` (revision 2)"
        assert chain[2].source == f"{tmp_path / 'stack.yaml'}:6:13"
        assert (chain[3].source, chain[3].reason) == ("plugin Owner", "one a core")
        assert chain[4].source.endswith("test_core_origins.Config")
        assert (port.user_field, port.update) == (True, "reload")
        (size,) = stack.explain("inference/acme", "inner.size")
        assert [(each.layer, each.value) for each in (size, *size.beat)] == [
            ("stack", 5),
            ("hardware", 4),
            ("class", 3),
        ]
        assert (size.user_field, size.update) == (True, "in_place")
        (depth,) = stack.explain("acme", "config.inner.depth")
        assert (depth.layer, depth.value, depth.user_field, depth.update) == ("class", 2, False, "restart")


def test_a_value_equal_to_a_lower_one_still_counts(tmp_path):
    with open_stack(tmp_path, one({"port": 80}), Owner(Config)) as stack:
        stack.configurations.register(overlay({"port": 80}))
        (port,) = stack.explain("acme", "port")
        assert [each.layer for each in (port, *port.beat)] == ["overlay", "stack", "class"]


def test_a_null_is_a_value(tmp_path):
    with open_stack(tmp_path, one({"name": None}), Owner(Config)) as stack:
        (name,) = stack.explain("acme", "name")
        assert (name.layer, name.value) == ("stack", None)
        assert effective(stack).name is None
        stack.configurations.register(overlay({"name": "me"}))
        assert effective(stack).name == "me"


def test_what_was_replaced_as_a_whole_is_no_candidate(tmp_path):
    with open_stack(tmp_path, one({"options": {"b": 2}}), Owner(Config)) as stack:
        stack.configurations.register(overlay({"options": None}), name="cleared")
        (options,) = stack.explain("acme", "options")
        assert (options.layer, options.value) == ("overlay", None)
        stack.configurations.register(overlay({"options": {"c": 3}}), name="anew")
        assert effective(stack).options == {"a": 1, "c": 3}
        told = {each.path: each.layer for each in stack.explain("acme", "options")}
        assert told == {"options.a": "class", "options.c": "overlay"}


def test_a_union_that_became_another_member_has_nothing_of_the_old_one(tmp_path):
    with open_stack(tmp_path, one({"store": {"kind": "sqlite", "path": "/mine"}}), Owner(Config)) as stack:
        assert [each.layer for each in stack.explain("acme", "store")] == ["stack", "stack"]
        stack.configurations.register(overlay({"store": {"kind": "postgres"}}))
        assert effective(stack).store == Postgres()
        told = {
            each.path: (each.layer, each.value, len(each.beat)) for each in stack.explain("acme", "store")
        }
        assert told == {
            "store.kind": ("overlay", "postgres", 1 + 1),
            "store.host": ("class", "localhost", 0),
            "store.path": ("class", "public", 0),
        }


def test_a_list_is_one_leaf(tmp_path):
    with open_stack(tmp_path, one({"tags": ["y", "z"]}), Owner(Config)) as stack:
        (tags,) = stack.explain("acme", "tags")
        assert (tags.layer, tags.value) == ("stack", ["y", "z"])
        assert [(each.layer, each.value) for each in tags.beat] == [("class", ["x"])]


def test_a_policy_that_has_a_part_in_the_defaults_is_named(tmp_path):
    class Policy:
        __name__ = "policy"

        @hookimpl(wrapper=True)
        def default_config(self, provider):
            result = yield
            return {**result, "port": because(7, "the site")}

    with open_stack(tmp_path, one(), Owner(Config, defaults=DEFAULTS), Policy()) as stack:
        (port,) = stack.explain("acme", "port")
        assert (port.value, port.reason) == (7, "the site")
        assert "policy" in port.source
        assert "Owner" in port.source


def test_who_is_meant_is_found_or_said(tmp_path):
    data = one()
    data["providers"]["safety"] = [{"provider_id": "acme", "provider_type": "remote::acme"}]
    data["providers"]["safety"].append({"provider_id": "guard", "provider_type": "remote::acme"})
    owner = Owner({"inference/remote::acme": Config, "safety/remote::acme": Config})
    with open_stack(tmp_path, data, owner) as stack:
        assert stack.key_of("guard") == "safety/guard"
        with pytest.raises(UnknownName, match="ambiguous; say one of inference/acme, safety/acme"):
            stack.explain("acme")
        with pytest.raises(UnknownName, match="did you mean `guard`"):
            stack.explain("gaurd")
        with pytest.raises(UnknownName, match="no field `prt`; did you mean `port`"):
            stack.explain("guard", "prt")


# Defaults that are mappings, and aliases


class Layered(BaseModel):
    options: dict[str, int] = user_field({"a": 1, "b": 2})
    inner: Inner = Inner(size=9, depth=9)
    named: dict[str, Inner] = user_field({"one": Inner(size=7)})
    plain: Inner = Inner()


def test_mappings_of_class_defaults_merge_by_key(tmp_path):
    config = {"options": {"b": 5, "c": 6}, "inner": {"size": 1}, "named": {"one": {"depth": 0}, "two": {}}}
    with open_stack(tmp_path, one(config), Owner(Layered)) as stack:
        now = effective(stack)
        assert now.options == {"a": 1, "b": 5, "c": 6}
        assert (now.inner.size, now.inner.depth) == (1, 9)
        assert (now.named["one"].size, now.named["one"].depth) == (7, 0)
        assert now.named["two"] == Inner()


def test_defaults_below_lists_and_mappings_merge_too():
    class Item(BaseModel):
        options: dict[str, int] = {"a": 1}

    class Holder(BaseModel):
        many: list[Item] = []
        named: dict[str, Item] = {}

    plan = plan_of(Holder)
    data = {"many": [{"options": {"b": 2}}], "named": {"x": {"options": {"b": 2}}}}
    config = Holder.model_validate(over_class_defaults(data, plan))
    assert config.many[0].options == config.named["x"].options == {"a": 1, "b": 2}


def test_a_union_keeps_its_defaults_tag_and_takes_another_member_by_its_keys(tmp_path):
    class Basic(BaseModel, extra="forbid"):
        user: str = "nobody"

    class Bearer(BaseModel, extra="forbid"):
        header: str

    class Service(BaseModel):
        store: Annotated[Sqlite | Postgres, Field(discriminator="kind")] = Sqlite()
        auth: Basic | Bearer = Basic(user="somebody")

    with open_stack(
        tmp_path, one({"store": {"path": "/x"}, "auth": {"header": "X"}}), Owner(Service)
    ) as stack:
        now = effective(stack)
        assert now.store == Sqlite(path="/x")
        assert now.auth == Bearer(header="X")


class Aliased(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str = user_field("class", validation_alias=AliasChoices("endpoint", "baseUrl"))
    port: int = user_field(1, alias="tcpPort")
    host: str = user_field("h", validation_alias=AliasPath("server", "host"))
    inner: "Deep" = Field(default_factory=lambda: Deep(itemSize=1), alias="innerThing")


class Deep(BaseModel):
    size: int = user_field(1, alias="itemSize")


Aliased.model_rebuild()


@pytest.mark.parametrize(
    ("low", "high"),
    [
        ({"url": "low"}, {"url": "high"}),
        ({"endpoint": "low"}, {"baseUrl": "high"}),
        ({"baseUrl": "low"}, {"url": "high"}),
        ({"url": "low"}, {"endpoint": "high"}),
    ],
)
def test_names_and_aliases_meet_in_every_layer(tmp_path, low, high):
    for number, (defaults, stack_values, registered) in enumerate(
        [(low, high, None), (low, None, high), (None, low, high)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with open_stack(folder, one(stack_values or {}), Owner(Aliased, defaults=defaults)) as stack:
            if registered:
                stack.configurations.register(overlay(registered))
            assert stack.issues == ()
            assert effective(stack).url == "high"
            (url,) = stack.explain("acme", "url")
            assert [each.value for each in (url, *url.beat)] == ["high", "low", "class"]


def test_nested_aliases_and_paths_meet_too(tmp_path):
    defaults = {"innerThing": {"itemSize": because(2, "fits")}, "tcpPort": because(3, "free")}
    data = one({"server": {"host": "low"}})
    with open_stack(tmp_path, data, Owner(Aliased, defaults=defaults)) as stack:
        now = effective(stack)
        assert (now.inner.size, now.port, now.host) == (2, 3, "low")
        assert stack.explain("acme", "inner.size")[0].reason == "fits"
        assert stack.explain("acme", "port")[0].reason == "free"
        stack.configurations.register(overlay({"inner": {"itemSize": 5}, "host": "high"}))
        now = effective(stack)
        assert (now.inner.size, now.host) == (5, "high")
        (host,) = stack.explain("acme", "host")
        assert [each.value for each in (host, *host.beat)] == ["high", "low", "h"]


def test_a_field_given_twice_under_two_names_is_an_error_in_the_file_and_dropped_in_a_configuration(tmp_path):
    with open_stack(tmp_path, one({"url": "a", "endpoint": "b"}), Owner(Aliased)) as stack:
        (issue,) = stack.issues
        assert issue.path == "config.endpoint"
        assert "`url`" in str(issue)
    with open_stack(tmp_path, one(), Owner(Aliased)) as stack:
        registered = stack.configurations.register(overlay({"url": "a", "endpoint": "b"}))
        (issue,) = registered.dropped
        assert "the same field as `url`" in issue.message
        assert effective(stack).url == "a"


# Labels


class Issue993(BaseModel):
    """As upstream's issue writes it, without importing anything of stackconf."""

    url: str = Field("http://localhost:11434", json_schema_extra={"user_field": True})
    timeout: int = 60
    kept: int = Field(1, json_schema_extra={"user_field": False})
    odd: int = Field(1, json_schema_extra={"user_field": "yes", "update": "sometimes"})
    called: int = Field(1, json_schema_extra=lambda schema: None)


def test_the_raw_label_of_issue_993_is_understood_and_only_true_is_true(tmp_path):
    assert user_paths(plan_of(Issue993)) == ["url"]
    labels = labels_at(plan_of(Issue993), ("odd",))
    assert (labels.user, labels.update) == (False, "restart")
    with open_stack(tmp_path, one(), Owner(Issue993)) as stack:
        assert stack.configurations.inspect() == {
            "providers": {
                "inference": [
                    {
                        "config": {"url": "http://localhost:11434"},
                        "provider_id": "acme",
                        "provider_type": "remote::acme",
                    }
                ]
            }
        }
        assert stack.plan().changes[0].update == "restart"


def test_inspect_lists_every_api_of_the_stack_and_empty_ones_as_empty_lists(tmp_path):
    data = {
        "apis": ["telemetry", "safety"],
        **one(),
    }
    data["providers"]["vector_io"] = []
    with open_stack(tmp_path, data, Owner(Issue993)) as stack:
        providers = stack.configurations.inspect()["providers"]
        assert list(providers) == ["inference", "safety", "telemetry", "vector_io"]
        assert providers["safety"] == providers["vector_io"] == []


def test_inspect_shows_the_user_fields_of_nested_models_lists_and_mappings(tmp_path):
    class Part(BaseModel):
        seen: int = user_field(1)
        unseen: int = Field(2, json_schema_extra={"user_field": False})
        other: int = 3

    class Whole(BaseModel):
        part: Part = Part()
        opened: Part = user_field(Part())
        parts: list[Part] = [Part()]
        opened_parts: list[Part] = user_field([Part()])
        named: dict[str, Part] = {"a": Part()}
        nothing: Part | None = None

    with open_stack(tmp_path, one(), Owner(Whole)) as stack:
        (entry,) = stack.configurations.inspect()["providers"]["inference"]
        assert entry["config"] == {
            "part": {"seen": 1},
            "opened": {"seen": 1, "other": 3},
            "opened_parts": [{"seen": 1, "other": 3}],
            "named": {"a": {"seen": 1}},
        }


def test_a_plan_of_a_recursive_class_ends():
    class Tree(BaseModel):
        name: str = user_field("leaf")
        child: "Tree | None" = None

    plan = plan_of(Tree)
    assert user_paths(plan) == ["name"]
    data = {"child": {"child": {"name": "deep"}}}
    assert (
        merge(data, {"child": {"child": {"child": {"name": "x"}}}}, plan)["child"]["child"]["name"] == "deep"
    )


def test_explaining_calls_no_plugin_again(tmp_path):
    owner = Owner(Config, defaults=DEFAULTS)
    with open_stack(tmp_path, one(), owner) as stack:
        stack.explain("acme")
        calls = len(owner.calls)
        stack.explain("acme")
        stack.plan()
        assert len(owner.calls) == calls == 2
