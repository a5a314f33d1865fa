"""Flows: providers that run one after another, and have one share of the machine together."""

from __future__ import annotations

from core_kit import open_stack
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from stackconf import ProviderType, simulate, user_field
from stackconf.hardware.shares import shared_out, sharing
from stackconf.types import Placement

TURNS = {"eval/x": "x", "post_training/x": "x"}


def test_a_flow_counts_once_and_its_providers_have_the_same():
    box = simulate("h100-80gb-sxm:8")
    shares = shared_out(box, [*TURNS, "inference/a"], flows=TURNS)
    assert [sorted(unit for unit, _ in share.units) for share in shares.values()] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [0, 1, 2, 3],
    ]
    alone = shared_out(box, TURNS, flows=TURNS)
    assert {share.hardware is box for share in alone.values()} == {True}
    assert (
        alone["eval/x"].reason
        == "all of it in turn with post_training/x; no other provider uses accelerators"
    )


def test_what_a_flow_was_placed_on_is_for_all_of_it():
    placed = {"post_training/x": Placement((1, 2))}
    shares = shared_out(simulate("l4:4"), [*TURNS, "inference/a"], placed, flows=TURNS)
    assert (
        dict(shares["eval/x"].units) == dict(shares["post_training/x"].units) == {(1, None): 1, (2, None): 1}
    )
    assert "where the stack file places post_training/x" in shares["eval/x"].reason
    assert [unit for unit, _ in shares["inference/a"].units] == [0, 3]


def test_placements_of_one_flow_on_one_card_are_not_summed_up_and_others_are():
    box = simulate("l4")
    placed = {key: Placement((0,), 0.9) for key in TURNS}
    assert sharing(box, TURNS, placed, flows=TURNS).faults == ()
    assert len(sharing(box, TURNS, placed).faults) == 1
    more = {**placed, "inference/a": Placement((0,), 0.3)}
    (fault,) = sharing(box, more, more, flows=TURNS).faults
    assert "1.2 in all is more than all of it" in fault.message


def test_the_rest_of_a_card_is_given_once_to_a_flow():
    placed = {**{key: Placement((0,)) for key in TURNS}, "inference/a": Placement((0,), 0.5)}
    shares = shared_out(simulate("l4"), [], placed, flows=TURNS)
    assert shares["eval/x"].units == shares["post_training/x"].units == {(0, None): 0.45}


@given(
    st.integers(1, 8),
    st.dictionaries(st.sampled_from("abcdefg"), st.sampled_from(["", "", "x", "y"]), min_size=1),
)
def test_no_card_is_given_away_twice_whatever_the_flows(count, flows):
    shares = shared_out(simulate(f"l4:{count}"), flows, flows=flows)
    users = {}
    for key, share in shares.items():
        users.setdefault(flows[key] or key.upper(), share.units)
        assert users[flows[key] or key.upper()] == share.units
        assert share.units or len(users) > count
    for unit in range(count):
        taken = [units[unit, None] for units in users.values() if (unit, None) in units]
        assert sum(taken) <= (1 if len(taken) == 1 else 0.95)


class Engine(BaseModel):
    memory: float = user_field(0.9, claims="accelerator_memory_fraction")


class Turns:
    provides = (
        ProviderType("eval", "inline::x", Engine, accelerators=True, flow="x"),
        ProviderType("post_training", "inline::x", Engine, accelerators=True, flow="x"),
        ProviderType("inference", "inline::a", Engine, accelerators=True),
    )


def stack_on(tmp_path, apis, config=None, placement=None):
    types = {"inference": "inline::a"}
    entries = {
        api: [
            {
                "provider_id": "x",
                "provider_type": types.get(api, "inline::x"),
                "config": (config or {}).get(api, {}),
            }
        ]
        for api in apis
    }
    data = {"providers": entries, "stackconf": {"placement": placement or {}}}
    return open_stack(tmp_path, data, Turns(), hardware=simulate("l4"))


def test_of_what_a_flow_claims_only_the_most_counts(tmp_path):
    with stack_on(tmp_path, ["eval", "post_training"], {"eval": {"memory": 0.6}}) as stack:
        assert stack.issues == ()
        assert [claim.share for claim in stack.resolution.claims] == [0.6, 0.9]
    with stack_on(tmp_path, ["eval", "post_training", "inference"], {"eval": {"memory": 0.6}}) as stack:
        (issue,) = stack.issues
        assert issue.code == "over-claimed"
        assert "1.8 of its memory is claimed" in issue.message
        assert "eval/x" not in issue.message, "it does not run while post_training/x does"
    little = {"eval": {"memory": 0.2}, "post_training": {"memory": 0.45}, "inference": {"memory": 0.45}}
    with stack_on(tmp_path, little, little) as stack:
        assert stack.issues == ()
