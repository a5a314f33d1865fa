"""What was kept for the way back is taken down once: when the apply is kept and written down."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from core_kit import Owner, one_entry, open_stack, overlay
from pydantic import BaseModel, SecretStr

from stackconf import Applied, ApplyError, user_field


class Service(BaseModel):
    port: int = user_field(80, update="reload")
    mode: str = user_field("ok", update="in_place")
    token: SecretStr = SecretStr("canary-of-the-class")


class World:
    """Two providers that keep what they had until they are told to take it down.

    A provider's `mode` says how its turn goes: `ok`, `away`, `reject`, `sick`; `stuck` and `hang` are
    those of its retire, `async` makes that a coroutine.
    """

    def __init__(self, store: Path) -> None:
        self.acts: list[str] = []
        self.store = store

    def attempts(self) -> list[str]:
        """How each attempt ended, as the store has it at this moment."""
        with closing(sqlite3.connect(self.store)) as db:
            return [state for (state,) in db.execute("SELECT state FROM attempt ORDER BY number")]

    def __call__(self, provider: Any, config: Any, previous: Any) -> Applied:
        name, mode = provider.provider_id, (config or previous).mode

        def retire() -> Any:
            self.acts.append(f"retire {name} {self.attempts()[-1]}")
            if mode == "stuck":
                raise OSError("canary-of-the-class will\nnot end")
            return True

        async def later() -> str:
            await asyncio.sleep(0)
            retire()
            return "which nobody reads"

        def undo() -> None:
            self.acts.append(f"undo {name}")

        if mode == "reject":
            raise ValueError("no")
        if mode == "away":
            return Applied(pending="no answer", retire=retire)
        return Applied(
            undo=undo,
            check=lambda: "sick" if mode == "sick" else None,
            retire=later if mode == "async" else retire,
        )


@pytest.fixture
def opened(tmp_path):
    """A stack with the providers `a` and `b`, in this order, and their world."""
    world = World(tmp_path / ".stackconf" / "stack.yaml.sqlite3")
    entries = [one_entry(provider_id="a"), one_entry(provider_id="b")]
    with open_stack(tmp_path, {"providers": {"inference": entries}}, Owner(Service, applying=world)) as stack:
        yield stack, world


def modes(stack: Any, **wanted: str) -> None:
    for name, mode in wanted.items():
        stack.configurations.register(overlay({"mode": mode}, f"inference/{name}"), name)


def test_each_is_told_once_after_the_attempt_is_written_down(opened):
    stack, world = opened
    assert stack.apply().warnings == ()
    assert world.acts == ["retire a applied", "retire b applied"]
    assert stack.apply().state == "nothing"
    modes(stack, b="async")
    assert stack.apply().warnings == ()
    assert world.acts[2:] == ["retire b applied"]


@pytest.mark.parametrize("mode", ["reject", "sick"])
def test_nothing_is_taken_down_where_the_apply_is_taken_back(opened, mode):
    stack, world = opened
    modes(stack, b=mode)
    with pytest.raises(ApplyError):
        stack.apply()
    assert [each for each in world.acts if each.startswith("retire")] == []
    assert "undo a" in world.acts


def test_one_that_could_not_be_reached_has_nothing_to_take_down_and_the_others_do(opened):
    stack, world = opened
    modes(stack, a="away")
    assert stack.apply().state == "pending"
    assert world.acts == ["retire b pending"]


def test_one_that_fails_is_a_warning_without_secrets_and_the_rest_is_taken_down(opened):
    stack, world = opened
    modes(stack, a="stuck")
    report = stack.apply()
    assert report.state == "applied"
    assert world.acts == ["retire a applied", "retire b applied"]
    (warning,) = report.warnings
    assert warning.startswith("inference/a: what it had before is not down: OSError: ")
    assert "canary" not in warning
    assert "\n" not in warning
    assert stack.apply().state == "nothing"


def test_one_that_leaves_is_told_as_well(opened, tmp_path):
    stack, world = opened
    stack.apply()
    del world.acts[:]
    with open_stack(
        tmp_path,
        {"providers": {"inference": [one_entry(provider_id="a")]}},
        Owner(Service, applying=world),
    ) as fewer:
        fewer.apply()
    assert "retire b applied" in world.acts


# -- what was applied last -------------------------------------------------------------------------


def last(stack: Any) -> Any:
    return stack.manager.last_applied(stack.store)


def test_nothing_was_applied_yet(opened):
    assert last(opened[0]) is None


def test_the_configurations_that_were_applied_last_are_objects_again(opened, tmp_path):
    stack, world = opened
    stack.configurations.register(overlay({"port": 1}, "inference/a"), "one")
    stack.apply()
    stack.configurations.register(overlay({"port": 2}, "inference/a"), "two")
    with open_stack(
        tmp_path, (tmp_path / "stack.yaml").read_text(), Owner(Service, applying=world)
    ) as again:  # another process, which has not applied anything itself
        found = last(again)
        assert {key: config.port for key, config in found.items()} == {"inference/a": 1, "inference/b": 80}
        assert found["inference/a"].token.get_secret_value() == "canary-of-the-class"


def test_a_provider_that_the_file_has_no_longer_is_not_among_them(opened, tmp_path):
    stack, world = opened
    stack.apply()
    with open_stack(
        tmp_path,
        {"providers": {"inference": [one_entry(provider_id="a")]}},
        Owner(Service, applying=world),
    ) as fewer:
        assert last(fewer).keys() == {"inference/a"}


def test_they_cannot_be_had_where_a_secret_is_another_one(opened, tmp_path):
    """Secrets are not in the store; one that has changed since cannot be brought back."""
    owner = Owner(Service, applying=opened[1])

    def found(token: str) -> Any:
        data = {"providers": {"inference": [one_entry({"token": token}, provider_id="a")]}}
        with open_stack(tmp_path, data, owner) as stack:
            if token == "first":
                stack.apply()
            return last(stack)

    assert found("first").keys() == {"inference/a"}
    assert found("second") is None
