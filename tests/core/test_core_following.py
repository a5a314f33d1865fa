"""`default_config` that takes `others`: values that follow another provider's."""

from __future__ import annotations

from itertools import pairwise

import pytest
from core_kit import effective, lines, one_entry, open_stack, overlay
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from stackconf import InvalidConfig, Issue, ProviderType, because, hookimpl, user_field

APIS = ("first", "second", "third")


class Config(BaseModel):
    length: int = user_field(1, ge=1, le=1000)
    wide: bool = user_field(False)
    token: SecretStr = user_field(SecretStr(""))


class Chain:
    """Each api's providers are as long as the longest of the api before, and one more."""

    provides = (
        ProviderType("first", "inline::x", Config),
        ProviderType("second", "inline::x", Config, api_dependencies=("first",)),
        ProviderType("third", "inline::x", Config, api_dependencies=("second",)),
    )

    def __init__(self):
        self.asked = []

    @hookimpl
    def default_config(self, provider, others):
        self.asked.append((provider.key, sorted(each.key for each in others)))
        if not others:
            return None
        longest = max(others, key=lambda each: (others[each].length, each.key))
        return {"length": because(others[longest].length + 1, f"one more than {longest.key}")}

    @hookimpl
    def validate_user_config(self, provider, config):
        if config.wide and config.length > 5:
            yield Issue("too long for a wide one", path="length")


def chain_of(tmp_path, *plugins, apis=APIS, **configs):
    entries = {
        api: [one_entry(configs.get(api, {}), provider_id="p", provider_type="inline::x")] for api in apis
    }
    return open_stack(tmp_path, {"providers": entries}, *(plugins or (Chain(),)))


def lengths(stack):
    return [effective(stack, f"{api}/p").length for api in APIS]


@pytest.mark.parametrize("apis", [APIS, APIS[::-1], ("second", "third", "first")])
def test_each_follows_the_ones_before_in_whatever_order_the_file_has_them(tmp_path, apis):
    chain = Chain()
    with chain_of(tmp_path, chain, apis=apis, first={"length": 10}) as stack:
        assert lengths(stack) == [10, 11, 12]
        assert list(stack.resolution.providers) == [f"{api}/p" for api in apis]
        assert chain.asked == [("first/p", []), ("second/p", ["first/p"]), ("third/p", ["second/p"])]
        (origin,) = stack.explain("third/p", "length")
        assert (origin.layer, origin.reason) == ("hardware", "one more than second/p")


def test_an_overlay_on_one_moves_what_follows_it_and_the_plan_has_all_of_them(tmp_path):
    with chain_of(tmp_path) as stack:
        assert lengths(stack) == [1, 2, 3]
        registered = stack.configurations.register(overlay({"length": 7}, "first/p"))
        assert lengths(stack) == [7, 8, 9]
        assert [change.provider.key for change in registered.plan.changes] == [f"{api}/p" for api in APIS]
        stack.configurations.register(overlay({"length": 50}, "second/p"), name="mine")
        assert lengths(stack) == [7, 50, 51]
        stack.configurations.unassign("default")
        assert lengths(stack) == [1, 50, 51]


def test_what_is_set_does_not_follow(tmp_path):
    with chain_of(tmp_path, second={"length": 4}) as stack:
        stack.configurations.register(overlay({"length": 7}, "first/p"))
        assert lengths(stack) == [7, 4, 5]


def test_nobody_is_asked_again_unless_what_it_follows_is_another_now(tmp_path):
    chain = Chain()
    with chain_of(tmp_path, chain) as stack:
        lengths(stack)
        chain.asked.clear()
        stack.configurations.register(overlay({"wide": True}, "third/p"))
        assert {key for key, _ in chain.asked} == {"third/p"}
        stack.configurations.inspect()
        chain.asked.clear()
        stack.configurations.inspect()
        assert chain.asked == []


def test_a_configuration_that_makes_a_follower_invalid_is_not_registered(tmp_path):
    with chain_of(tmp_path, third={"wide": True}) as stack:
        assert stack.issues == ()
        with pytest.raises(InvalidConfig) as refused:
            stack.configurations.register(overlay({"length": 4}, "first/p"))
        assert "third/p: config.length: too long for a wide one" in lines(refused.value.issues)[0]
        assert stack.revision == 0
        stack.configurations.register(overlay({"length": 3}, "first/p"))
        with pytest.raises(InvalidConfig):  # beyond what the class takes, which no one wrote
            stack.configurations.register(overlay({"length": 999}, "first/p"))
        assert lengths(stack) == [3, 4, 5]


def test_both_changed_at_once_are_checked_with_each_other(tmp_path):
    both = {
        "first": [{"provider_id": "p", "config": {"length": 900}}],
        "third": [{"provider_id": "p", "config": {"length": 2}}],
    }
    with chain_of(tmp_path, third={"wide": True}) as stack:
        stack.configurations.register(both)
        assert lengths(stack) == [900, 901, 2]


def test_one_without_a_valid_configuration_is_not_followed(tmp_path):
    with chain_of(tmp_path, first={"length": 0}) as stack:
        assert effective(stack, "second/p").length == 1
        assert [issue.provider for issue in stack.issues] == ["first/p"]


def test_in_a_circle_nobody_follows_and_the_plan_warns(tmp_path):
    class Circle(Chain):
        provides = (
            ProviderType("first", "inline::x", Config, api_dependencies=("third",)),
            *Chain.provides[1:],
        )

    with chain_of(tmp_path, Circle()) as stack:
        assert lengths(stack) == [1, 1, 1]
        assert [issue.code for issue in stack.plan().issues] == ["dependency-cycle"]


def test_a_plugin_that_fails_when_given_others_is_named(tmp_path):
    class Broken(Chain):
        @hookimpl
        def default_config(self, provider, others):
            if others:
                raise RuntimeError("no idea")

    with chain_of(tmp_path, Broken()) as stack:
        assert [issue.code for issue in stack.issues] == ["hook-error"] * 2
        assert "no idea" in str(stack.issues[0])


def test_a_followed_secret_that_changed_is_followed(tmp_path, monkeypatch):
    class Secretive(Chain):
        @hookimpl
        def default_config(self, others):
            return (
                {"length": len(next(iter(others.values())).token.get_secret_value()) + 1} if others else None
            )

    monkeypatch.setenv("TOKEN_OF_ONE", "abc")
    with chain_of(tmp_path, Secretive()) as stack:
        stack.configurations.register(overlay({"token": "${env.TOKEN_OF_ONE}"}, "first/p"))
        assert effective(stack, "second/p").length == 4
        monkeypatch.setenv("TOKEN_OF_ONE", "abcdef")
        assert "length: 7" in str(stack.configurations.inspect()).replace("'", "")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(
        st.tuples(st.sampled_from(APIS), st.integers(1, 900) | st.none(), st.sampled_from("ab")),
        max_size=6,
    )
)
def test_step_by_step_is_the_same_as_all_at_once(tmp_path_factory, changes):
    """Whatever was registered and taken back: as a stack that was opened only now has it."""
    folder = tmp_path_factory.mktemp("chain")
    with chain_of(folder) as stack:
        for api, length, name in changes:
            if length is not None:
                stack.configurations.register(overlay({"length": length}, f"{api}/p"), name=name)
            elif any(each.name == name and each.assigned for each in stack.configurations.list()):
                stack.configurations.unassign(name)
            now = lengths(stack)
            with chain_of(folder) as again:
                assert lengths(again) == now
            config = {api: effective(stack, f"{api}/p").length for api in APIS}
            for before, after in pairwise(APIS):
                (origin,) = stack.explain(f"{after}/p", "length")
                assert origin.layer == "overlay" or config[after] == config[before] + 1
