"""Providers that must agree: `others` in `validate_user_config`, asked once all are resolved."""

from __future__ import annotations

import pytest
from core_kit import Owner, effective, lines, one_entry, open_stack, overlay
from pydantic import BaseModel, SecretStr

from stackconf import InvalidConfig, Issue, ProviderType, hookimpl, user_field


class Config(BaseModel):
    port: int = user_field(80, ge=1)
    token: SecretStr = user_field(SecretStr(""))


class Strict:
    """Every provider must have a port of its own."""

    provides = (ProviderType("inference", "remote::acme", Config),)

    def __init__(self):
        self.asked = []

    @hookimpl
    def validate_user_config(self, provider, user_config, config, others):
        self.asked.append((provider.key, dict(user_config), sorted(each.key for each in others)))
        for other, theirs in others.items():
            if theirs.port == config.port and other.key < provider.key:
                yield Issue(
                    f"port {config.port} is that of {other.key}{theirs.token.get_secret_value()}",
                    path="port",
                    hint="take another",
                )


class Policy:
    """A cross-cutting plugin that sees every provider, and the others of each."""

    @hookimpl
    def validate_user_config(self, provider, others):
        if len(others) > 1:
            yield Issue(f"{len(others) + 1} providers are too many", level="warning", provider=provider.key)


def stack_of(tmp_path, ports, *plugins, **options):
    entries = [one_entry({"port": port}, provider_id=name) for name, port in ports.items()]
    return open_stack(tmp_path, {"providers": {"inference": entries}}, *plugins, **options)


def test_a_value_of_the_file_that_contradicts_another_provider_is_an_issue_at_its_place(tmp_path):
    with stack_of(tmp_path, {"a": 1, "b": 1, "c": 3}, Strict()) as stack:
        (issue,) = stack.issues
        assert issue.provider == "inference/b"
        assert issue.path == "config.port"
        assert issue.where is not None
        assert "port 1 is that of inference/a" in str(issue)
        with pytest.raises(InvalidConfig):
            stack.apply()
        assert effective(stack, "inference/b").port == 1


def test_a_configuration_that_brings_a_contradiction_is_not_registered(tmp_path):
    with stack_of(tmp_path, {"a": 1, "b": 2}, Strict()) as stack:
        with pytest.raises(InvalidConfig) as refused:
            stack.configurations.register(overlay({"port": 1}, "inference/b"))
        assert "port 1 is that of inference/a" in lines(refused.value.issues)[0]
        assert stack.revision == 0
        # the same from the other side, where the blame is on a provider that it does not name
        with pytest.raises(InvalidConfig, match="not registered"):
            stack.configurations.register(overlay({"port": 2}, "inference/a"))
        assert stack.issues == ()


def test_both_may_change_together_and_an_old_contradiction_refuses_nothing_else(tmp_path):
    with stack_of(tmp_path, {"a": 1, "b": 2, "c": 3, "d": 3}, Strict()) as stack:
        assert len(stack.issues) == 1  # c and d
        both = {
            "inference": [
                {"provider_id": "a", "config": {"port": 2}},
                {"provider_id": "b", "config": {"port": 1}},
            ]
        }
        stack.configurations.register(both)
        assert [effective(stack, f"inference/{name}").port for name in "ab"] == [2, 1]
        stack.configurations.register(overlay({"port": 9}, "inference/d"), name="mend")
        assert stack.issues == ()


def test_only_plugins_that_take_others_are_asked_again_when_another_provider_changes(tmp_path):
    strict, plain = Strict(), Owner({"agents/remote::plain": Config})
    entries = {
        "inference": [one_entry({"port": 1}, provider_id="a")],
        "agents": [one_entry({"port": 5}, provider_id="p", provider_type="remote::plain")],
    }
    with open_stack(tmp_path, {"providers": entries}, strict, plain) as stack:
        assert stack.issues == ()
        assert strict.asked == [("inference/a", {}, ["agents/p"])]
        assert plain.asked("validate_user_config") == ["agents/p"]
        stack.configurations.register(overlay({"port": 6}, "agents/p"))
        assert plain.asked("validate_user_config") == ["agents/p", "agents/p"]
        assert all(key == "inference/a" for key, *_ in strict.asked)
        asked = len(strict.asked)
        stack.configurations.inspect()
        stack.configurations.inspect()
        assert len(strict.asked) == asked


def test_an_invalid_provider_is_not_among_the_others(tmp_path):
    strict = Strict()
    with stack_of(tmp_path, {"a": 0, "b": 2, "c": 3}, strict) as stack:
        assert len(stack.issues) == 1
        assert {key: others for key, _, others in strict.asked} == {
            "inference/b": ["inference/c"],
            "inference/c": ["inference/b"],
        }


def test_a_cross_cutting_plugin_sees_the_others_beside_an_owner_that_does_not_ask(tmp_path):
    owner = Owner(Config)
    with stack_of(tmp_path, {"a": 1, "b": 2, "c": 3}, owner, Policy()) as stack:
        assert len([each for each in stack.issues if each.level == "warning"]) == 3
        assert len(owner.asked("validate_user_config")) == 3


def test_a_plugin_that_fails_when_asked_about_others_is_named(tmp_path):
    class Broken(Strict):
        @hookimpl
        def validate_user_config(self, provider, others):
            raise RuntimeError("no idea")

    with stack_of(tmp_path, {"a": 1}, Broken()) as stack:
        (issue,) = stack.issues
        assert issue.code == "hook-error"
        assert "no idea" in str(issue)


def test_another_providers_secret_is_not_repeated(tmp_path):
    secret = "hunter2-and-more"
    entries = [
        one_entry({"port": 1, "token": secret}, provider_id="a"),
        one_entry({"port": 1}, provider_id="b"),
    ]
    with open_stack(tmp_path, {"providers": {"inference": entries}}, Strict()) as stack:
        (issue,) = stack.issues
        assert secret not in str(issue)
