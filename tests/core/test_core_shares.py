"""Providers that share accelerators: what each is told, what they take together, and who is asked."""

from __future__ import annotations

import pytest
from core_kit import open_stack
from pydantic import BaseModel

from stackconf import Accelerator, Issue, ProviderType, Stack, because, hookimpl, simulate, user_field
from stackconf.fields import plan_of
from stackconf.testing import machine

GIB = 1024**3


class Memory(BaseModel):
    of_card: float | None = user_field(None, claims="accelerator_memory_fraction")


class Engine(BaseModel):
    memory: float = user_field(0.9, claims="accelerator_memory_fraction")
    cache_bytes: int | None = user_field(None, claims="accelerator_memory_bytes")
    nested: Memory = user_field(Memory())
    cards: list[int] = user_field([])


class Serving:
    """`engine` heeds its share, `naive` does not, `quiet` does not say that it uses accelerators, and
    `small` needs little.
    """

    provides = (
        ProviderType("inference", "remote::engine", Engine, accelerators=True),
        ProviderType("inference", "remote::naive", Engine, accelerators=True),
        ProviderType("inference", "remote::quiet", Engine),
        ProviderType("inference", "remote::small", Engine, accelerators="little"),
    )

    def __init__(self):
        self.seen = {}

    @hookimpl
    def default_config(self, provider, hardware):
        self.seen[provider.provider_id] = hardware
        cards = hardware.accelerators
        if provider.provider_type == "remote::engine" and cards:
            return {
                "memory": because(0.9 * cards[0].share, "its share"),
                "cards": [card.index for card in cards],
            }
        return None

    @hookimpl
    def validate_user_config(self, provider, hardware):
        assert hardware is self.seen[provider.provider_id]
        return []


_OPENED: list[Stack] = []


def opened(stack: Stack) -> Stack:
    """The stack, which is closed when its test is over."""
    _OPENED.append(stack)
    return stack


@pytest.fixture(autouse=True)
def closed_in_the_end():
    yield
    while _OPENED:
        _OPENED.pop().close()


def stack_of(folder, hardware, placement=None, **types):
    plugin = Serving()
    entries = [
        {"provider_id": name, "provider_type": f"remote::{kind}", "config": config}
        for name, (kind, config) in types.items()
    ]
    settings = {"stackconf": {"placement": placement}} if placement is not None else {}
    data = {"version": 2, "providers": {"inference": entries}, **settings}
    return opened(open_stack(folder, data, plugin, hardware=hardware)), plugin


def value_of(stack, name):
    return stack.resolution.providers[f"inference/{name}"].config


def said(stack) -> list[str]:
    return [str(issue).replace(stack.file.name, "stack.yaml") for issue in stack.issues]


def test_a_provider_alone_and_one_that_uses_no_cards_see_the_very_machine(tmp_path):
    box = simulate("l40s:2")
    stack, plugin = stack_of(tmp_path, box, one=("engine", {}), two=("quiet", {"memory": 0.05}))
    assert value_of(stack, "one").cards == [0, 1]
    assert plugin.seen["one"] is plugin.seen["two"] is box
    assert stack.resolution.shares == {}
    assert stack.shares["inference/one"].reason == "no other provider uses accelerators"


def test_providers_of_one_machine_derive_from_their_own_share(tmp_path):
    stack, plugin = stack_of(tmp_path, simulate("l40s:4"), b=("engine", {}), a=("engine", {}))
    assert (value_of(stack, "a").cards, value_of(stack, "b").cards) == ([0, 1], [2, 3])
    stack, _ = stack_of(tmp_path, simulate("l40s"), b=("engine", {}), a=("engine", {}))
    assert value_of(stack, "a").memory == value_of(stack, "b").memory == pytest.approx(0.4275)
    assert stack.issues == ()
    assert len(plugin.seen["a"].accelerators) == 2


def test_one_that_needs_little_leaves_the_cards_to_the_other(tmp_path):
    stack, plugin = stack_of(tmp_path, simulate("l40s:2"), a=("engine", {}), s=("small", {"memory": 0.01}))
    assert value_of(stack, "s").memory == 0.01
    assert [each.share for each in plugin.seen["a"].accelerators] == [1.0, 0.95]
    assert [(each.index, each.share) for each in plugin.seen["s"].accelerators] == [(1, 0.05)]
    assert stack.shares["inference/s"].units == {(1, None): 0.05}


def test_the_same_stack_on_another_machine_is_shared_out_anew(tmp_path):
    stack, _ = stack_of(tmp_path, simulate("l40s:4"), a=("engine", {}), b=("engine", {}))
    other = stack.manager.on(simulate("l40s:2")).resolve()
    assert other.providers["inference/b"].config.cards == [1]
    assert value_of(stack, "b").cards == [2, 3]


def test_a_placement_is_what_the_provider_sees(tmp_path):
    placement = {
        "inference/b": {"cards": [1], "memory": "9GiB"},
        "inference/q": {"cards": [0], "memory": 0.25},
    }
    stack, plugin = stack_of(
        tmp_path,
        simulate("l40s:2"),
        placement,
        a=("engine", {}),
        b=("engine", {}),
        q=("quiet", {"memory": 0.1}),
    )
    assert stack.issues == ()
    (card,) = plugin.seen["b"].accelerators
    assert (card.index, card.memory_bytes) == (1, pytest.approx(9 * GIB, abs=1))
    assert [each.share for each in plugin.seen["q"].accelerators] == [0.25]
    # Nothing is free, so the one that nobody placed has the most that is left.
    assert stack.shares["inference/a"].units == {(1, None): 0.749}


def test_what_providers_take_of_a_card_is_summed_up_whoever_set_it(tmp_path):
    stack, _ = stack_of(
        tmp_path, simulate("l40s:2"), {}, a=("naive", {"memory": 0.6}), b=("naive", {}), c=("engine", {})
    )
    (issue,) = stack.issues
    assert (issue.level, issue.code) == ("error", "over-claimed")
    assert issue.message.startswith("card 0: 1.027 of its memory is claimed: inference/a 0.6 (`memory`, ")
    stack.configurations.register(
        {"inference": [{"provider_id": "a", "config": {"memory": 0.7}}]}, name="more"
    )
    text = said(stack)[0]
    assert "inference/a 0.7 (`memory`, configuration `more` (revision 1))" in text
    assert "inference/c 0.4275 (`memory`, plugin" in text
    assert "inference/b" not in text


@pytest.mark.parametrize(
    ("a", "b", "level", "problem"),
    [
        ({"memory": 0.47}, {"memory": 0.48}, None, ""),
        (
            {"memory": 0.5},
            {"memory": 0.48},
            "warning",
            "above 0.95 the last one finds too little free to start",
        ),
        ({"memory": 0.5}, {"memory": 0.51}, "error", "1.01 of its memory is claimed"),
        (
            {"memory": 0.5},
            {"memory": 0, "cache_bytes": 36 * GIB},
            "error",
            "inference/b 0.8002 (`cache_bytes`",
        ),
        (
            {"memory": 0.5},
            {"memory": 0, "nested": {"of_card": 0.6}},
            "error",
            "0.6 (`nested.of_card`, stack.yaml:",
        ),
    ],
)
def test_a_fraction_bytes_and_nested_fields_count(tmp_path, a, b, level, problem):
    stack, _ = stack_of(tmp_path, simulate("l40s"), a=("naive", a), b=("quiet", b))
    found = [issue.level for issue in stack.issues]
    assert found == ([level] if level else [])
    assert all(problem in text for text in said(stack))


def test_one_alone_that_takes_more_than_a_card_is_told(tmp_path):
    stack, _ = stack_of(tmp_path, simulate("l40s:2"), a=("naive", {"memory": 0.99}))
    assert stack.issues == ()
    stack, _ = stack_of(tmp_path, simulate("l40s:2"), a=("naive", {"memory": 1.5}))
    (issue,) = stack.issues
    assert issue.message.startswith(
        "cards 0-1: 1.5 of the memory of each is claimed: inference/a 1.5 (`memory`"
    )


def test_an_oversubscribed_card_stops_an_apply(tmp_path):
    stack, _ = stack_of(tmp_path, simulate("l40s"), a=("naive", {}), b=("naive", {}))
    assert [issue.code for issue in stack.plan().errors] == ["over-claimed"]


def test_who_claims_nothing_counts_with_what_was_given(tmp_path):
    class Quiet(BaseModel):
        model: str = ""

    plugin = Serving()
    plugin.provides = (
        *plugin.provides,
        ProviderType("inference", "remote::silent", Quiet, accelerators=True),
    )
    entries = [
        {"provider_id": "a", "provider_type": "remote::naive", "config": {"memory": 0.6}},
        {"provider_id": "b", "provider_type": "remote::silent", "config": {}},
    ]
    data = {"version": 2, "providers": {"inference": entries}}
    stack = opened(open_stack(tmp_path, data, plugin, hardware=simulate("l40s")))
    (issue,) = stack.issues
    assert issue.level == "warning"
    assert issue.message.startswith("card 0: 1.075 of its memory is claimed: inference/a 0.6 (`memory`, ")
    assert issue.message.endswith(
        "inference/b 0.475 (given to it); above 0.95 the last one finds too little free to start"
    )


def test_a_division_that_is_kept_is_never_warned_of(tmp_path):
    """An engine that claims nothing has 0.95 of a card, and its guest the rest."""

    class Guest(BaseModel):
        taken: float = user_field(0.05, claims="accelerator_memory_fraction")

    class Quiet(BaseModel):
        model: str = ""

    plugin = Serving()
    plugin.provides = (
        ProviderType("inference", "remote::silent", Quiet, accelerators=True),
        ProviderType("inference", "remote::guest", Guest, accelerators="little"),
    )

    def issues(taken):
        entries = [
            {"provider_id": "a", "provider_type": "remote::silent", "config": {}},
            {"provider_id": "b", "provider_type": "remote::guest", "config": {"taken": taken}},
        ]
        data = {"version": 2, "providers": {"inference": entries}}
        folder = tmp_path / str(taken)
        folder.mkdir()
        return opened(open_stack(folder, data, plugin, hardware=simulate("l40s"))).issues

    assert issues(0.05) == ()
    (issue,) = issues(0.06)
    assert issue.message.startswith("card 0: 1.01 of its memory is claimed: inference/b 0.06")


def test_a_provider_claims_only_the_cards_that_it_computes_on(tmp_path):
    class Counting(BaseModel):
        memory: float = user_field(0.9, claims="accelerator_memory_fraction")
        cards: int | None = None

        @property
        def stackconf_accelerators(self):
            return self.cards

    plugin = Serving()
    plugin.provides = (ProviderType("inference", "remote::counting", Counting, accelerators=True),)
    entries = [
        {"provider_id": name, "provider_type": "remote::counting", "config": {"cards": cards}}
        for name, cards in {"a": 1, "b": None}.items()
    ]
    data = {"version": 2, "providers": {"inference": entries}}
    stack = opened(open_stack(tmp_path, data, plugin, hardware=simulate("l40s:4")))
    claimed = [(claim.provider, claim.unit) for claim in stack.resolution.claims]
    assert claimed == [
        ("inference/a", (0, None)),
        ("inference/b", (2, None)),
        ("inference/b", (3, None)),
    ]
    assert stack.issues == ()


def here(config):
    return {"yes": True, "no": False}[config["here"]]


@pytest.mark.parametrize(("b", "cards"), [("yes", [0]), ("no", [0, 1]), ("who knows", [0])])
def test_whether_a_provider_uses_cards_may_depend_on_its_settings(tmp_path, b, cards):
    class Maybe(BaseModel):
        here: str = user_field("yes")
        key: str = "sk-secret-1"
        memory: float = user_field(0.9, claims="accelerator_memory_fraction")

    plugin = Serving()
    kind = ProviderType("inference", "remote::maybe", Maybe, accelerators=here)
    plugin.provides = (*plugin.provides, kind)
    entries = [
        {"provider_id": "a", "provider_type": "remote::engine", "config": {}},
        {"provider_id": "b", "provider_type": "remote::maybe", "config": {"here": b, "memory": 1.0}},
    ]
    data = {"version": 2, "providers": {"inference": entries}}
    stack = opened(open_stack(tmp_path, data, plugin, hardware=simulate("l40s:2")))
    assert value_of(stack, "a").cards == cards
    assert ("inference/b" in {claim.provider for claim in stack.resolution.claims}) == (b != "no")
    # A user of it cannot take cards away from the others.
    change = {"inference": [{"provider_id": "b", "config": {"here": "yes"}}]}
    stack.configurations.register(change, name="mine")
    assert value_of(stack, "a").cards == cards
    told = [issue for issue in stack.issues if issue.code == "hook-error"]
    assert len(told) == (b == "who knows")
    for issue in told:
        assert "accelerators" in issue.message
        assert "raised KeyError" in issue.message
        assert "who knows" not in issue.message


def test_bytes_of_a_card_of_unknown_size_cannot_be_summed(tmp_path):
    box = machine(accelerators=[Accelerator("nvidia", 0, memory_kind="unified")])
    stack, _ = stack_of(
        tmp_path, box, a=("naive", {"memory": 0.5}), b=("naive", {"memory": 0.4, "cache_bytes": 10**15})
    )
    assert stack.issues == ()


def test_who_gets_no_card_is_planned_without_and_told(tmp_path):
    stack, plugin = stack_of(
        tmp_path, simulate("l4"), {"inference/a": {"memory": 0.92}}, a=("engine", {}), b=("engine", {})
    )
    (issue,) = stack.issues
    assert plugin.seen["b"].certainly_no_accelerator
    assert (issue.provider, issue.code, issue.level) == ("inference/b", "no-share", "warning")


def test_a_card_that_is_not_there_is_told_at_its_place(tmp_path):
    placement = {"inference/a": {"cards": [0, 7]}}
    stack, _ = stack_of(tmp_path, simulate("l4"), placement, a=("engine", {}))
    (issue,) = stack.issues
    assert "there is no card `7` here; there is card 0" in str(issue)
    assert stack.file.document.raw_text(("stackconf", "placement", "inference/a", "cards", 1)) == "7"
    assert issue.where == stack.file.document.position(("stackconf", "placement", "inference/a", "cards", 1))


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ([], "`placement` must map providers to what they have; write `{cards: [0, 1], memory: 0.6}` below"),
        ({"inference/z": {}}, "the stack has no provider `inference/z`; it has inference/a"),
        ({"inferense/a": {}}, "the stack has no provider `inferense/a`; did you mean `inference/a`?"),
        ({"inference/a": [0]}, "a placement is a mapping of `cards` and `memory`; write `{cards"),
        ({"inference/a": {}}, "a placement says nothing; write `{cards"),
        ({"inference/a": {"cards": [0], "memroy": 1}}, "a placement has no `memroy`; did you mean `memory`?"),
        ({"inference/a": {"cards": 0}}, "`cards` must be a list; write `cards: [0, 1]`"),
        ({"inference/a": {"cards": [True]}}, "`True` is no card; give its index, PCI address or uuid"),
        ({"inference/a": {"cards": [0, "0"]}}, "`0` is there twice"),
        (
            {"inference/a": {"memory": 0}},
            "`memory` must be a part of each card, and is `0`; write a fraction",
        ),
        ({"inference/a": {"memory": 1.5}}, "`memory` must be a part of each card, and is `1.5`"),
        ({"inference/a": {"memory": "lots"}}, "`memory` must be a part of each card, and is `lots`"),
        ({"inference/a": {"memory": "nan"}}, "`memory` must be a part of each card, and is `nan`"),
    ],
)
def test_a_placement_of_the_wrong_form_is_one_line_with_its_place(tmp_path, placement, message):
    stack, _ = stack_of(tmp_path, simulate("l4"), placement, a=("engine", {}))
    found: list[Issue] = [issue for issue in stack.issues if issue.code == "bad-placement"]
    assert message in str(found[0])
    assert len(found) == 1
    assert found[0].where is not None


def test_a_placement_may_come_from_the_environment_and_name_a_disabled_provider(tmp_path):
    text = """
providers:
  inference:
  - {provider_id: a, provider_type: remote::engine}
  - {provider_id: "${env.OTHER:+b}", provider_type: remote::engine}
stackconf:
  placement:
    inference/a: {cards: ["${env.CARD:=1}"], memory: "${env.PART:=0.5}"}
    inference/b: {cards: [0]}
"""
    stack = opened(open_stack(tmp_path, text, Serving(), hardware=simulate("l40s:2")))
    assert stack.shares["inference/a"].units == {(1, None): 0.5}
    (issue,) = stack.issues
    assert issue.level == "warning"
    assert "no provider `inference/b` that is enabled" in issue.message


def test_claims_are_read_from_the_class_once_and_never_from_a_recursive_one():
    assert plan_of(Engine).claims == (
        (("memory",), "accelerator_memory_fraction"),
        (("cache_bytes",), "accelerator_memory_bytes"),
        (("nested", "of_card"), "accelerator_memory_fraction"),
    )

    class Tree(BaseModel):
        share: float = user_field(0.1, claims="accelerator_memory_fraction")
        below: Tree | None = None

    Tree.model_rebuild(_types_namespace={"Tree": Tree})
    assert plan_of(Tree).claims == ((("share",), "accelerator_memory_fraction"),)


def test_when_the_cards_change_they_are_shared_out_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("stackconf.manager.FACTS_KEEP", 0.0)
    machines = [simulate("l40s:2"), simulate("l40s:4")]
    stack, _ = stack_of(tmp_path, lambda: machines.pop(0), a=("engine", {}), b=("engine", {}))
    assert value_of(stack, "b").cards == [1]
    assert stack.manager.look_again() is True
    assert value_of(stack, "b").cards == [2, 3]


def test_a_type_whose_use_depends_on_its_settings_is_described_so(tmp_path):
    from stackconf.described import described
    from stackconf.shapes.types import type_data, type_from

    class Maybe(BaseModel):
        here: str = "yes"

    plugin = Serving()
    plugin.provides = (ProviderType("inference", "remote::maybe", Maybe, accelerators=here),)
    data = {"version": 2, "providers": {"inference": []}}
    stack = opened(open_stack(tmp_path, data, plugin, hardware=simulate("l4")))
    told = described(stack.manager.registry, "inference/remote::maybe")
    assert told.accelerators == "depends"
    assert type_from(type_data(told)) == told
