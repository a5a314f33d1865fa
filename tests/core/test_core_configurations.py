"""Registered configurations: every form in, what is refused, and never a partial change."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest
import yaml
from core_kit import Owner, distribution, effective, lines, one, one_entry, open_stack, overlay, registry_of
from pydantic import BaseModel, Field, SecretStr, model_validator

from stackconf import Conflict, InvalidConfig, Issue, Sealed, UnknownName, user_field
from stackconf.given import read_configuration


class Config(BaseModel):
    url: str = user_field("http://localhost", update="reload")
    port: int = user_field(80, ge=1, le=65535)
    secret_door: int = 1
    ratio: float | None = user_field(None)
    api_key: SecretStr | None = None


URL = {"inference": [{"provider_id": "acme", "provider_type": "remote::acme", "config": {"url": "http://x"}}]}


@pytest.fixture
def stack(tmp_path):
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        yield stack


# The forms


def forms(folder: Path) -> dict[str, object]:
    json_file, yaml_file = folder / "given.json", folder / "given.yaml"
    odd_file = folder / "given"
    json_file.write_text(json.dumps(URL))
    yaml_file.write_text(yaml.safe_dump(URL))
    odd_file.write_text(yaml.safe_dump({"providers": URL}))
    return {
        "mapping": URL,
        "mapping with providers": {"providers": URL},
        "json": json.dumps(URL),
        "json with providers": json.dumps({"providers": URL}),
        "yaml": yaml.safe_dump(URL),
        "yaml with providers": yaml.safe_dump({"providers": URL}),
        "one line of yaml": "inference: [{provider_id: acme, config: {url: 'http://x'}}]",
        "bytes": json.dumps(URL).encode(),
        "path": json_file,
        "path as text": str(yaml_file),
        "path without a suffix": odd_file,
        "without a type": overlay({"url": "http://x"}),
        "a whole stack file": {"version": 2, "apis": ["inference"], "providers": URL},
        "tuples": {"inference": (URL["inference"][0],)},
        "a long line": " " * 5000 + json.dumps(URL),
    }


@pytest.mark.parametrize("form", list(forms(Path("/tmp"))))
def test_every_form_is_the_same_configuration(stack, tmp_path, form):
    registered = stack.configurations.register(forms(tmp_path)[form])
    assert registered.kept == URL
    assert (registered.name, registered.revision) == ("default", 1)
    assert effective(stack).url == "http://x"
    assert [change.provider.key for change in registered.plan.changes] == ["inference/acme"]
    assert [issue.level for issue in registered.warnings] == ["ignored"] * (
        2 if form == "a whole stack file" else 0
    )


def test_registering_changes_exactly_what_it_says_and_unregistering_takes_it_back(stack):
    before = stack.effective()
    stack.configurations.register(URL)
    after = stack.effective()
    before["providers"]["inference"][0]["config"]["url"] = "http://x"
    assert after == before
    stack.configurations.unregister("default")
    assert effective(stack).url == "http://localhost"
    assert stack.revision == 2
    assert stack.configurations.list() == []


# What is wrong, in one line


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "not int"),
        (None, "not NoneType"),
        ("", "is empty"),
        ("just text", "a mapping of apis, not text"),
        ([1], "not list"),
        ("[1]", "a mapping of apis, not a list"),
        ({"providers": 5}, "`providers` is a mapping of apis, not `5`"),
        ({"inference": {}}, "`inference` is a list of providers, not a mapping"),
        ({"inference": None}, "`inference` is a list of providers, not nothing"),
        ({"provider_id": "acme"}, "`provider_id` is a list of providers, not text"),
        ({"inference": ["acme"]}, "a provider is a mapping, not text"),
        ({"inference": [{"config": {}}]}, "a provider has no `provider_id`"),
        ({"inference": [{"provider_id": 5}]}, "`provider_id` is one line of text, not `5`"),
        (
            {"inference": [{"provider_id": "acme", "config": []}]},
            "`config` is a mapping of fields, not a list",
        ),
        ({"inference": [{"provider_id": "acme", "confg": {}}]}, "did you mean `config`?"),
        ({"inference": [one_entry(), one_entry()]}, "`inference/acme` is given twice"),
        (overlay({"url": date(2024, 1, 2)}), "a date"),
        (overlay({"url": object()}), "an object of type object"),
        (overlay({"url": {1: 2}}), "a key is `1`, not text"),
        (overlay({"port": SecretStr("canary4711")}), "an object of type SecretStr"),
        (overlay({"port": 10**9000}), "too large a number"),
        ("{", "expected"),
        ('{"inference": [{"provider_id": "acme", "provider_id": "b"}]}', "twice"),
        (b"\xff\xfe\x00", "UTF-8"),
        ("no-such-file.yaml", "no-such-file.yaml"),
        (Path("/nonexistent/x"), "/nonexistent/x"),
        (Path("/"), "folder"),
    ],
)
def test_a_wrong_shape_is_one_line_and_changes_nothing(stack, given, said):
    with pytest.raises(InvalidConfig) as caught:
        stack.configurations.register(given)
    text = str(caught.value)
    assert said in text
    assert "\n" not in text
    assert "canary" not in text
    lines(caught.value.issues)
    assert stack.revision == 0


def test_a_mapping_nested_without_end_is_refused(stack):
    endless = {}
    endless["url"] = endless
    with pytest.raises(InvalidConfig, match="levels deep"):
        stack.configurations.register(overlay(endless))


def test_positions_are_those_of_the_text(stack, tmp_path):
    file = tmp_path / "given.yaml"
    file.write_text(
        "inference:\n- provider_id: acme\n  config:\n    port: many\n    secret_door: 2\n    urrl: x\n"
    )
    with pytest.raises(InvalidConfig) as caught:
        stack.configurations.register(file)
    first, second, third = lines(caught.value.issues)
    assert first.startswith(f"{file}:4:5: error: inference/acme: config.port: should be a whole number")
    assert "given by configuration `default`" in first
    assert second.startswith(
        f"{file}:5:5: ignored: inference/acme: config.secret_door: dropped: not a user field"
    )
    assert third.startswith(f"{file}:6:5: ignored: inference/acme: config.urrl: dropped: unknown field")
    assert "did you mean `url`?" in third


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (overlay({"url": "x"}, "inference/acne"), "did you mean `inference/acme`?"),
        (overlay({"url": "x"}, "inferense/acme"), "did you mean `inference`?"),
        (overlay({"url": "x"}, "safety/acme"), "no provider of api `safety` in the stack"),
        (
            {"inference": [one_entry({"url": "x"}, provider_type="remote::other")]},
            "cannot change a provider's type",
        ),
        (overlay({"port": 0}), "config.port: should be greater than or equal to 1, not 0"),
        (overlay({"port": "eighty"}), "should be a whole number, not 'eighty'"),
        (overlay({"ratio": "half"}), "config.ratio: should be a number"),
        (overlay({"url": None}), "config.url: should be text, not null"),
    ],
)
def test_what_does_not_fit_the_stack_is_refused_and_changes_nothing(stack, given, said):
    with pytest.raises(InvalidConfig) as caught:
        stack.configurations.register(given)
    text = "\n".join(lines(caught.value.issues))
    assert said in text
    assert stack.revision == 0
    assert stack.configurations.list() == []


def test_every_mistake_is_told_at_once(stack):
    given = {
        "inference": [
            {"provider_id": "acme", "config": {"port": 0, "url": 5}},
            {"provider_id": "nobody", "config": {"url": "x"}},
        ]
    }
    with pytest.raises(InvalidConfig) as caught:
        stack.configurations.register(given)
    assert any("inference/nobody" in line for line in lines(caught.value.issues))
    given["inference"].pop()
    with pytest.raises(InvalidConfig) as caught:
        stack.configurations.register(given)
    assert {issue.path for issue in caught.value.issues} == {"config.port", "config.url"}


def test_a_disabled_provider_is_said_to_be_disabled(tmp_path):
    data = {"providers": {"inference": [one_entry(provider_id=None)]}}
    with open_stack(tmp_path, data, Owner(Config)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(URL)
        assert "the provider is disabled in the stack file" in str(caught.value.issues[0])
        assert stack.revision == 0


def test_a_provider_that_nobody_owns_cannot_be_configured(tmp_path):
    with open_stack(tmp_path, one(), registry=registry_of()) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay({"url": "x"}))
        assert "no installed plugin provides" in str(caught.value.issues[0])


def test_what_a_plugin_finds_wrong_refuses_it(tmp_path):
    def findings(provider, user_config, config, hardware):
        if user_config.get("port") == 22:
            yield Issue("22 is taken", path="port", hint="use another")
        if user_config.get("port") == 23:
            yield Issue("23 is odd", path="port", level="warning")

    with open_stack(tmp_path, one(), Owner(Config, findings=findings)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay({"port": 22}))
        assert lines(caught.value.issues) == ["error: inference/acme: config.port: 22 is taken; use another"]
        assert stack.revision == 0
        registered = stack.configurations.register(overlay({"port": 23}))
        assert lines(registered.warnings) == ["warning: inference/acme: config.port: 23 is odd"]


# What is dropped


def test_what_is_dropped_is_said_path_by_path(stack):
    registered = stack.configurations.register(
        overlay({"url": "x", "secret_door": 2, "urrl": 3, "api_key": "k"})
    )
    assert [(issue.path, issue.level, issue.code) for issue in registered.dropped] == [
        ("config.secret_door", "ignored", "not-user-field"),
        ("config.urrl", "ignored", "unknown-field"),
        ("config.api_key", "ignored", "not-user-field"),
    ]
    assert all("users may set" in issue.hint or "did you mean" in issue.hint for issue in registered.dropped)
    assert registered.kept["inference"][0]["config"] == {"url": "x"}


def test_on_dropped_decides(stack):
    given = overlay({"url": "x", "secret_door": 2})
    with pytest.raises(InvalidConfig, match="what a user may not set") as caught:
        stack.configurations.register(given, on_dropped="error")
    assert [issue.level for issue in caught.value.issues] == ["error"]
    assert stack.revision == 0
    assert stack.configurations.register(given, on_dropped="ignore").dropped == ()
    with pytest.raises(InvalidConfig, match="on_dropped is one of warn, error, ignore, not 'loud'"):
        stack.configurations.register(given, on_dropped="loud")


@pytest.mark.parametrize("config", [{}, {"secret_door": 2}, {"urrl": 1}])
def test_nothing_kept_is_an_error(stack, config):
    with pytest.raises(InvalidConfig, match="nothing to register"):
        stack.configurations.register(overlay(config))
    with pytest.raises(InvalidConfig, match="nothing to register"):
        stack.configurations.register({"inference": []})
    assert stack.revision == 0


# Names, order, revisions


def test_the_order_of_assignment_decides_and_assigning_again_lifts(stack):
    stack.configurations.register(overlay({"port": 1, "url": "one"}), name="one")
    stack.configurations.register(overlay({"port": 2}), name="two")
    assert (effective(stack).port, effective(stack).url) == (2, "one")
    stack.configurations.assign("one")
    assert effective(stack).port == 1
    assert [(each.name, each.assigned) for each in stack.configurations.list()] == [("two", 1), ("one", 2)]
    stack.configurations.unassign("one")
    assert effective(stack).port == 2
    assert [(each.name, each.assigned) for each in stack.configurations.list()] == [("two", 1), ("one", 0)]
    stack.configurations.register(overlay({"port": 3}), name="two")  # keeps its place
    stack.configurations.assign("one")
    stack.configurations.register(overlay({"port": 4}), name="two")
    assert effective(stack).port == 1


def test_registering_without_assigning(stack):
    stack.configurations.register(overlay({"port": 1}), assign=False)
    assert effective(stack).port == 80
    (listed,) = stack.configurations.list()
    assert (listed.name, listed.source, listed.providers, listed.assigned) == (
        "default",
        "user",
        ("inference/acme",),
        0,
    )
    stack.configurations.assign("default")
    assert effective(stack).port == 1


def test_registering_the_same_again_makes_no_revision(stack):
    assert stack.configurations.register(URL).revision == 1
    assert stack.configurations.register(URL).revision == 1
    assert stack.configurations.register(overlay({"url": "y"})).revision == 2


@pytest.mark.parametrize("name", ["", " ", "a\nb", " a", "x" * 201, None, 5])
def test_a_name_is_one_line(stack, name):
    with pytest.raises(InvalidConfig, match="a configuration's name is one line"):
        stack.configurations.register(URL, name=name)
    assert stack.revision == 0


def test_unknown_names_are_said_with_the_one_that_was_meant(stack):
    for act in ("get", "assign", "unassign", "unregister"):
        with pytest.raises(UnknownName, match="no configuration `defalt`; none is registered"):
            getattr(stack.configurations, act)("defalt")
    stack.configurations.register(URL)
    for act in ("get", "assign", "unassign", "unregister"):
        with pytest.raises(UnknownName, match="did you mean `default`"):
            getattr(stack.configurations, act)("defalt")
    stack.configurations.unassign("default")
    with pytest.raises(UnknownName, match="is not assigned"):
        stack.configurations.unassign("default")
    assert stack.revision == 2


def test_an_expected_revision_that_is_not_the_head_is_a_conflict(stack):
    stack.configurations.register(URL, expected_revision=0)
    for act in (
        lambda: stack.configurations.register(overlay({"url": "y"}), expected_revision=0),
        lambda: stack.configurations.unassign("default", expected_revision=0),
        lambda: stack.configurations.unregister("default", expected_revision=7),
    ):
        with pytest.raises(Conflict):
            act()
    assert stack.revision == 1


def test_who_did_what_is_in_the_history(stack, monkeypatch):
    monkeypatch.setenv("STACKCONF_ACTOR", "ada")
    stack.configurations.register(URL)
    stack.configurations.unassign("default", actor="grace")
    assert [(each.actor, each.action, each.subject) for each in stack.store.follow(0)] == [
        ("ada", "register", "default"),
        ("grace", "unassign", "default"),
    ]


def test_a_sealed_stack_refuses_every_change_and_can_be_read(tmp_path):
    data = {**one(), "stackconf": {"sealed": True}}
    with open_stack(tmp_path, data, Owner(Config)) as stack:
        for act in (
            lambda: stack.configurations.register(URL),
            lambda: stack.configurations.assign("default"),
            lambda: stack.configurations.unassign("default"),
            lambda: stack.configurations.unregister("default"),
        ):
            with pytest.raises(Sealed, match="is its only truth; change it there"):
                act()
        assert stack.configurations.inspect()["providers"]["inference"]
        assert stack.apply().state == "applied"


def test_what_was_assigned_before_sealing_does_not_count_and_is_said(tmp_path):
    with open_stack(tmp_path, one({"url": "http://file"}), Owner(Config)) as stack:
        stack.configurations.register(overlay({"url": "http://mine"}), name="mine")
        stack.configurations.register(overlay({"port": 7}), name="shelved", assign=False)
        stack.apply()
    text = yaml.safe_dump({**one({"url": "http://file"}), "stackconf": {"sealed": True}})
    with open_stack(tmp_path, text, Owner(Config)) as stack:
        (issue,) = stack.issues
        assert (issue.level, issue.code) == ("ignored", "sealed-stack")
        assert "configuration `mine` (revision 1) does not count: the stack is sealed" in str(issue)
        assert effective(stack).url == "http://file"
        (change,) = stack.plan().changes
        assert [(each.path, each.before, each.after) for each in change.fields] == [
            ("url", "http://mine", "http://file")
        ]
        assert stack.apply().state == "applied"
        assert not stack.plan()
    with open_stack(tmp_path, one({"url": "http://file"}), Owner(Config)) as stack:
        assert effective(stack).url == "http://mine"  # it was kept, not lost


@pytest.mark.parametrize("sealed", ["maybe", "1", "null", "[true]", "'yes'", "${env.SEALED}"])
def test_a_sealed_that_cannot_be_read_is_an_error_and_seals(tmp_path, sealed):
    text = yaml.safe_dump(one()) + f"stackconf:\n  sealed: {sealed}\n"
    with open_stack(tmp_path, text, Owner(Config)) as stack:
        (issue,) = stack.issues
        assert issue.level == "error"
        assert str(issue.where).endswith(":7:11")
        with pytest.raises(Sealed, match=r"`sealed` in .* cannot be read, which counts as sealed; mend it"):
            stack.configurations.register(URL)
        with pytest.raises(InvalidConfig):
            stack.apply()


def test_a_configuration_for_a_provider_that_left_the_stack_is_said_and_harms_nobody(tmp_path):
    data = one()
    data["providers"]["inference"].append(one_entry(provider_id="other"))
    with open_stack(tmp_path, data, Owner(Config)) as stack:
        stack.configurations.register(overlay({"port": 1}, "inference/other"), name="theirs")
    with open_stack(tmp_path, one(), Owner(Config)) as stack:
        (line,) = lines(stack.issues)
        assert "configuration `theirs` is for a provider that the stack no longer has" in line
        assert stack.apply().state == "applied"
        with pytest.raises(InvalidConfig, match="not assigned"):
            stack.configurations.assign("theirs")
        stack.configurations.unregister("theirs")
        assert stack.issues == ()


# Shipped ones


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    site = tmp_path / "site"
    distribution(site, "acme-ai", {"stackconf.configurations": {"acme": "core_profiles"}}, version="2.5")
    folder = site / "core_profiles"
    folder.mkdir()
    (folder / "__init__.py").write_text("1 / 0  # data is read without running code\n")
    (folder / "busy.yaml").write_text(
        "description: Many requests\nproviders:\n  inference:\n  - provider_id: acme\n    config: {port: 9}\n"
    )
    monkeypatch.syspath_prepend(site)
    registry = registry_of(Owner(Config), entry_points=True)
    with open_stack(tmp_path, one(), registry=registry) as stack:
        yield stack, folder


def test_a_shipped_configuration_is_available_until_it_is_assigned(shipped):
    stack, _ = shipped
    (listed,) = stack.configurations.list()
    assert (listed.name, listed.source, listed.description, listed.assigned) == (
        "acme/busy",
        "acme-ai 2.5",
        "Many requests",
        0,
    )
    assert stack.configurations.get("acme/busy").providers["inference"][0]["config"] == {"port": 9}
    assert effective(stack).port == 80
    stack.configurations.assign("acme/busy")
    assert effective(stack).port == 9
    with pytest.raises(UnknownName, match=r"shipped by acme-ai 2\.5; unassign it instead"):
        stack.configurations.unregister("acme/busy")
    stack.configurations.unassign("acme/busy")
    assert effective(stack).port == 80
    assert len(stack.configurations.list()) == 1


def test_a_shipped_configuration_that_is_wrong_is_a_problem_of_its_distribution(shipped):
    stack, folder = shipped
    (folder / "worse.yaml").write_text("providers: [")
    assert [each.name for each in stack.configurations.list()] == ["acme/busy"]
    (problem,) = stack.manager.registry.problems
    assert "acme-ai 2.5" in str(problem)
    assert "worse.yaml:" in str(problem)


# Only what changes is resolved again


def test_only_the_provider_whose_overlay_changed_is_resolved_again(tmp_path):
    owner = Owner(Config)
    data = {"providers": {"inference": [one_entry(provider_id=f"p{number}") for number in range(50)]}}
    with open_stack(tmp_path, data, owner) as stack:
        stack.configurations.inspect()
        assert len(owner.asked("default_config")) == 50
        owner.calls.clear()
        stack.configurations.inspect()
        stack.plan()
        stack.explain("p3")
        assert owner.calls == []
        stack.configurations.register(overlay({"port": 1}, "inference/p7"))
        assert set(owner.asked("default_config")) == {"inference/p7"}
        owner.calls.clear()
        stack.configurations.register(overlay({"port": 2}, "inference/p8"), name="other")
        assert set(owner.asked("default_config")) == {"inference/p8"}
        owner.calls.clear()
        stack.configurations.unassign("default")
        stack.configurations.inspect()
        assert set(owner.asked("default_config")) == {"inference/p7"}
        assert [effective(stack, f"inference/p{number}").port for number in (6, 7, 8)] == [80, 80, 2]


def test_each_layer_is_blamed_for_what_it_brings(tmp_path):
    class Pair(BaseModel):
        low: int = user_field(1)
        high: int = user_field(9)
        name: str = Field(description="What it is called")

        @model_validator(mode="after")
        def _ordered(self):
            if self.low > self.high:
                raise ValueError(f"low {self.low} is above high {self.high}")
            return self

    with open_stack(tmp_path, one({"low": 5, "name": "x"}), Owner(Pair)) as stack:
        with pytest.raises(InvalidConfig) as caught:
            stack.configurations.register(overlay({"high": 3}))
        (line,) = lines(caught.value.issues)
        assert "low 5 is above high 3" in line
        assert "given by configuration `default`" in line
    with open_stack(tmp_path, one({"low": 50, "name": "x"}), Owner(Pair)) as stack:
        (line,) = lines(stack.issues)
        assert f"{tmp_path / 'stack.yaml'}:" in line
        with pytest.raises(InvalidConfig) as caught:  # wrong already, and not by this configuration
            stack.configurations.register(overlay({"high": 8}))
        (line,) = lines(caught.value.issues)
        assert "low 50 is above high 8" in line
    with open_stack(tmp_path, one({"low": 2}), Owner(Pair)) as stack:
        (line,) = lines(stack.issues)
        assert "config.name: required field is missing" in line
        assert "What it is called" in line


def test_reading_a_configuration_keeps_no_secret_in_its_repr():
    given = read_configuration(overlay({"api_key": "canary4711"}))
    assert "canary4711" not in repr(given)


def test_the_order_is_the_files_whichever_provider_was_looked_at_first(tmp_path):
    entries = [{**one_entry(), "provider_id": name} for name in ("a", "b", "c")]
    given = {"inference": [{"provider_id": "c", "config": {"url": "http://x"}}]}
    file = {"providers": {"inference": entries}}
    with open_stack(tmp_path, file, Owner(Config)) as stack:
        stack.configurations.register(given)  # the first that this stack is asked
        inspected = stack.configurations.inspect()["providers"]["inference"]
        assert [each["provider_id"] for each in inspected] == ["a", "b", "c"]
        assert [each.provider.key for each in stack.plan().changes] == [f"inference/{name}" for name in "abc"]
