"""Drift: what is applied against what the files say, and who or what did it."""

from __future__ import annotations

import sqlite3

import pytest
from core_kit import MACHINE, Owner, one, one_entry, open_stack, overlay
from pydantic import BaseModel, SecretStr

from stackconf import Applied, ApplyError, because, user_field
from stackconf.redact import REDACTED
from stackconf.testing import machine

CANARY = "canary4711"


class Retry(BaseModel):
    attempts: int = user_field(3)
    backoff: float = 0.5


class Config(BaseModel):
    url: str = user_field("http://class")
    threads: int = user_field(1)
    api_key: SecretStr | None = user_field(None)
    retry: Retry = Retry()
    names: dict[str, str] = user_field({})


class Other(BaseModel):
    size: int = 1


def owner(**options) -> Owner:
    classes = {"inference/remote::acme": Config, "inference/remote::other": Other}
    return Owner(classes, **options)


def drift_of(folder, data, *, plugin=None, environ=None, hardware=MACHINE):
    with open_stack(folder, data, plugin or owner(), environ=environ, hardware=hardware) as stack:
        return stack.drift()


def rows(provider):
    return [(row.path, row.applied, row.file) for row in provider.fields]


def test_without_a_store_everything_is_merely_not_applied(tmp_path):
    drift = drift_of(tmp_path, one())
    assert [(each.kind, each.revision) for each in drift.providers] == [("not_applied", 0)]
    assert bool(drift)
    assert list(tmp_path.iterdir()) == [tmp_path / "stack.yaml"]  # looking writes nothing


def test_what_is_applied_as_the_files_say_has_not_drifted(tmp_path):
    with open_stack(tmp_path, one(), owner()) as stack:
        stack.apply()
        drift = stack.drift()
    assert not drift
    assert drift.same == ("inference/acme",)


def test_a_configuration_that_was_applied_is_named_with_its_revision_and_who_registered_it(tmp_path):
    with open_stack(tmp_path, one({"url": "http://file"}), owner()) as stack:
        stack.configurations.register(overlay({"threads": 2, "url": "http://mine"}), name="mine", actor="ada")
        stack.configurations.register(overlay({"retry": {"attempts": 9}}), name="more", actor="grace")
        stack.apply()
        (provider,) = stack.drift().providers
    assert (provider.kind, provider.revision) == ("differs", 2)
    assert rows(provider) == [
        ("url", "http://mine", "http://file"),
        ("threads", 2, 1),
        ("retry.attempts", 9, 3),
    ]
    told = [(row.configuration, row.revision, row.actor, row.changed) for row in provider.fields]
    assert told == [("mine", 1, "ada", ()), ("mine", 1, "ada", ()), ("more", 2, "grace", ())]
    assert [row.file_layer for row in provider.fields] == ["stack", "class", "class"]
    assert str(provider.fields[0].file_source).endswith("stack.yaml:6:12")


def test_it_is_told_still_when_the_configuration_is_no_longer_there(tmp_path):
    with open_stack(tmp_path, one(), owner()) as stack:
        stack.configurations.register(overlay({"threads": 2}), name="mine", actor="ada")
        stack.apply()
        stack.configurations.unregister("mine")
        (provider,) = stack.drift().providers
    assert [(row.configuration, row.revision, row.actor) for row in provider.fields] == [("mine", 1, "ada")]


def test_a_registered_configuration_that_was_never_applied_is_no_drift(tmp_path):
    with open_stack(tmp_path, one(), owner()) as stack:
        stack.apply()
        stack.configurations.register(overlay({"threads": 2}))
        assert not stack.drift()


@pytest.mark.parametrize(
    ("before", "after", "changed", "layer"),
    [
        ({"config": {"threads": 2}}, {"config": {"threads": 3}}, ("stack file",), "stack"),
        ({"config": {"threads": 2}}, {"config": {}}, ("stack file", "hardware", "plugin"), "class"),
        (
            {"config": {"threads": "${env.N}"}, "environ": {"N": "2"}},
            {"config": {"threads": "${env.N}"}, "environ": {"N": "3"}},
            ("environment", "stack file"),
            "stack",
        ),
        (
            {"hardware": machine(cores=2)},
            {"hardware": machine(cores=3)},
            ("hardware", "stack file", "plugin"),
            "hardware",
        ),
    ],
)
def test_where_no_configuration_did_it_what_may_have_changed_is_said(tmp_path, before, after, changed, layer):
    def cores(provider, hardware):
        return {"threads": because(hardware.cpu.usable_physical_cores, "cores")}

    def opened(config=None, environ=None, hardware=None):
        plugin = owner(defaults=cores if hardware else None)
        return open_stack(tmp_path, one(config), plugin, environ=environ, hardware=hardware or MACHINE)

    with opened(**before) as stack:
        stack.apply()
    with opened(**after) as stack:
        (provider,) = stack.drift().providers
    (row,) = provider.fields
    assert (row.path, row.applied) == ("threads", 2)
    assert (row.changed, row.file_layer, row.configuration) == (changed, layer, "")


def test_providers_that_only_one_side_has(tmp_path):
    two = one()
    two["providers"]["inference"].append(one_entry(provider_id="second"))
    with open_stack(tmp_path, one(), owner()) as stack:
        stack.apply()
    drift = drift_of(tmp_path, two)
    assert [(each.provider.key, each.kind) for each in drift.providers] == [
        ("inference/second", "not_applied")
    ]
    drift = drift_of(tmp_path, one(provider_id=None))
    assert [(each.kind, each.detail) for each in drift.providers] == [
        ("not_in_file", "it may be one that is disabled")
    ]
    drift = drift_of(tmp_path, one(provider_type="remote::other"))
    assert [(each.kind, each.detail) for each in drift.providers] == [
        ("other_type", "remote::acme is applied")
    ]


def test_a_provider_that_no_longer_validates_does_not_stop_the_others(tmp_path):
    data = one({"threads": 2})
    data["providers"]["inference"].append(one_entry({"threads": 2}, provider_id="second"))
    with open_stack(tmp_path, data, owner()) as stack:
        stack.apply()
    data["providers"]["inference"][0]["config"]["threads"] = "many"
    data["providers"]["inference"][1]["config"]["threads"] = 3
    drift = drift_of(tmp_path, data)
    assert [(each.provider.key, each.kind, rows(each)) for each in drift.providers] == [
        ("inference/acme", "invalid", []),
        ("inference/second", "differs", [("threads", 2, 3)]),
    ]
    assert [issue.provider for issue in drift.issues] == ["inference/acme"]


def test_a_state_that_nobody_knows_is_said_with_what_was_last_known(tmp_path):
    def applying(provider, config, previous):
        if config.threads == 5:
            return Applied(undo=lambda: 1 / 0, check=lambda: "it is ill")
        return Applied()

    with open_stack(tmp_path, one(), owner(applying=applying)) as stack:
        stack.apply()
        stack.configurations.register(overlay({"threads": 5}))
        with pytest.raises(ApplyError):
            stack.apply()
        (provider,) = stack.drift().providers
    assert provider.kind == "unknown"


def test_secrets_are_compared_and_never_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY", f"{CANARY}a")
    config = {"api_key": f"{CANARY}b", "names": {"token": f"{CANARY}c"}, "url": f"http://me:{CANARY}d@host"}
    with open_stack(tmp_path, one(config), owner()) as stack:
        stack.configurations.register(overlay({"api_key": "${env.KEY}"}), actor="ada")
        stack.apply()
        (provider,) = stack.drift().providers
        assert rows(provider) == [("api_key", REDACTED, REDACTED)]
        assert provider.fields[0].configuration == "default"
        assert CANARY not in repr(stack.drift())
        monkeypatch.setenv("KEY", f"{CANARY}b")  # now what the file says, but not what is applied
        (row,) = stack.drift().providers[0].fields
        assert row.configuration == ""
    changed = {**config, "url": f"http://me:{CANARY}e@host"}
    drift = drift_of(tmp_path, one(changed))
    assert ("url", f"http://me:{REDACTED}@host", f"http://me:{REDACTED}@host") in rows(drift.providers[0])
    assert CANARY not in repr(drift)


def test_a_sealed_stack_shows_what_was_assigned_before(tmp_path):
    with open_stack(tmp_path, one(), owner()) as stack:
        stack.configurations.register(overlay({"threads": 2}), name="mine", actor="ada")
        stack.apply()
    (provider,) = drift_of(tmp_path, {**one(), "stackconf": {"sealed": True}}).providers
    assert [(row.path, row.applied, row.file, row.configuration) for row in provider.fields] == [
        ("threads", 2, 1, "mine")
    ]


def test_revisions_that_cannot_be_read_leave_the_comparison(tmp_path):
    with open_stack(tmp_path, one(), owner()) as stack:
        stack.configurations.register(overlay({"threads": 2}))
        stack.apply()
        path = stack.store.path
    db = sqlite3.connect(path)
    db.execute("DROP TRIGGER revision_is_immutable")
    db.execute("UPDATE revision SET state = 'garbled'")
    db.commit()
    db.close()
    (provider,) = drift_of(tmp_path, one()).providers
    (row,) = provider.fields
    assert (row.applied, row.file, row.configuration) == (2, 1, "")
    assert row.changed[0] == "configuration"
