"""A card that vanishes between discovery and apply: over the stub, whose description changes meanwhile."""

from __future__ import annotations

import pytest
from machines import linux, write, x86
from machines.boxes import card
from pydantic import BaseModel

from stackconf import Applied, ProviderType, Stack, StalePlan, because, hookimpl, user_field
from stackconf.hardware.discovery import BUILTIN, Looking
from stackconf.testing import stack_with

ENTRY = {"provider_id": "engine", "provider_type": "inline::engine", "config": {}}


class Config(BaseModel):
    cards: int = user_field(0)
    name: str = user_field("")


class Engine:
    """Takes every card; remembers what it was given."""

    provides = (ProviderType("inference", "inline::engine", Config),)

    def __init__(self):
        self.applied = []

    @hookimpl
    def default_config(self, provider, hardware):
        return {"cards": because(len(hardware.visible_accelerators), "every card")}

    @hookimpl
    def apply_config(self, provider, config, previous):
        self.applied.append(None if config is None else config.cards)
        return Applied("done")


def cards(*numbers: int, also: str = "") -> str:
    one = {"capability": "8 9", "cores": 18176, "more": ("affinity ff", "node 0")}
    return also + "".join(card("NVIDIA L40S", "26b9", 46068, index=number, **one) for number in numbers)


@pytest.fixture
def box(tmp_path, monkeypatch, stub):
    """A machine whose cards can be changed: `box(text)`; `box.looks` counts the looks."""
    file = tmp_path / "cards.txt"
    root = write(tmp_path / "root", linux(), x86())
    monkeypatch.setenv("STACKCONF_NVML_STUB", str(file))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(stub))
    monkeypatch.setattr("stackconf.manager.FACTS_KEEP", 0.0)
    looking = None

    def become(text: str) -> None:
        file.write_text(text, encoding="utf-8")

    def look():
        nonlocal looking
        looking = looking or Looking(BUILTIN, root=root, deadline=become.deadline)
        become.looks += 1
        return looking()

    become.look, become.looks, become.deadline = look, 0, 30
    become(cards(0, 1))
    return become


@pytest.fixture
def engine():
    return Engine()


@pytest.fixture
def stack(box, engine):
    with stack_with([engine], {"inference": [ENTRY]}, hardware=box.look) as opened:
        yield opened


def test_a_plan_for_two_cards_is_refused_when_one_is_gone(box, stack: Stack, engine):
    plan = stack.plan()
    box(cards(0))
    with pytest.raises(StalePlan) as refused:
        stack.apply(plan)
    line = str(refused.value)
    assert (
        "the hardware changed (card 1: NVIDIA L40S GPU-00000001-0000-0000-0000-000000000000 is gone)" in line
    )
    assert line.endswith("plan again")
    assert "\n" not in line
    assert engine.applied == []
    # Planning again does it: the new facts count from then on.
    assert stack.plan().hardware.accelerators[0].peers == ()
    assert stack.apply(stack.plan()).state == "applied"
    assert engine.applied == [1]


def test_without_a_plan_what_is_there_now_is_applied(box, stack: Stack, engine):
    assert stack.effective()["providers"]["inference"][0]["config"]["cards"] == 2
    box(cards(0))
    assert stack.apply().state == "applied"
    assert engine.applied == [1]


def test_a_card_that_fell_off_the_bus_is_refused_with_the_drivers_word(box, stack: Stack):
    plan = stack.plan()
    box(cards(0) + cards(1) + "lost 0\n")
    with pytest.raises(
        StalePlan, match=r"card 1: NVIDIA L40S GPU-00000001\S* does not answer any more"
    ) as refused:
        stack.apply(plan)
    assert "NVML_ERROR_GPU_IS_LOST; it fell off the bus: reboot" in str(refused.value)


def test_a_driver_that_takes_all_cards_away_is_refused(box, stack: Stack, engine):
    """As in a container after the host's `systemctl daemon-reload`."""
    plan = stack.plan()
    box(cards(0, 1, also="fail nvmlInitWithFlags 999\n"))
    with pytest.raises(StalePlan, match=r"is gone.*NVML_ERROR_UNKNOWN.*in a container, restart it"):
        stack.apply(plan)
    assert engine.applied == []


def test_many_cards_that_are_gone_are_counted(box, stack: Stack):
    box(cards(0, 1, 2, 3))
    plan = stack.plan()
    box(cards(2))
    with pytest.raises(StalePlan, match=r"the hardware changed \(3 of 4 cards are gone\)"):
        stack.apply(plan)


def test_a_card_that_was_exchanged_is_refused(box, stack: Stack):
    plan = stack.plan()
    box(cards(0, 7))
    with pytest.raises(
        StalePlan, match=r"GPU-00000001\S* is gone, card 1: NVIDIA L40S GPU-00000007\S* is new"
    ):
        stack.apply(plan)


def test_what_is_free_may_change(box, stack: Stack):
    plan = stack.plan()
    box(cards(0, 1).replace(str(45568 * 1024**2), "1"))
    assert stack.apply(plan).state == "applied"


def test_an_apply_that_changes_nothing_does_not_look(box, stack: Stack):
    stack.apply()
    looks = box.looks
    assert stack.apply().state == "nothing"
    assert box.looks == looks


def test_fresh_facts_are_not_looked_at_again(box, stack: Stack, monkeypatch):
    monkeypatch.setattr("stackconf.manager.FACTS_KEEP", 60.0)
    assert stack.apply(stack.plan()).state == "applied"
    assert box.looks == 1


def test_facts_that_were_given_stay(engine, monkeypatch):
    from stackconf.testing import machine

    monkeypatch.setattr("stackconf.manager.FACTS_KEEP", 0.0)
    with stack_with([engine], {"inference": [ENTRY]}, hardware=machine()) as stack:
        assert stack.manager.look_again() is False
        assert stack.apply().state == "applied"


def test_a_driver_that_hung_is_not_asked_again(box, stack: Stack):
    box.deadline = 2
    box(cards(0, also="sleep nvmlInitWithFlags 60\n"))
    plan = stack.plan()
    assert [problem.kind for problem in stack.hardware.problems] == ["timeout"]
    assert stack.apply(plan).state == "applied"
    assert box.looks == 1
