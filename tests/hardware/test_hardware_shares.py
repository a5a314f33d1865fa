"""Sharing out accelerators: what everybody gets, and what a placement is told."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stackconf import Accelerator, Hardware, MigInstance, Problem, simulate
from stackconf.hardware.shares import LEAST_SHARE, SHARED_LIMIT, shared_out, sharing, unit_memory
from stackconf.types import Placement

GIB = 1024**3
NAMES = [f"inference/{letter}" for letter in "abcdefgh"]


def cards_of(share) -> list[int]:
    return [card.index for card in share.hardware.accelerators]


# --------------------------------------------------------------------------------- nothing is placed


def test_one_provider_has_the_whole_machine_itself():
    box = simulate("h100-80gb-sxm:8,cpu=96")
    assert shared_out(box, ["inference/a"])["inference/a"].hardware is box


def test_two_providers_divide_eight_cards_into_neighbours():
    shares = shared_out(simulate("h100-80gb-sxm:8,numa=2,cpu=96"), NAMES[:2])
    assert [cards_of(share) for share in shares.values()] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    card = shares["inference/a"].hardware.accelerators[0]
    assert (card.share, card.memory_bytes, card.nvlink_peers) == (1.0, 81559 * 1024**2, (1, 2, 3))
    assert shares["inference/b"].reason == "cards 4-7: 8 cards divided among 2 providers"


def test_two_providers_share_one_card_and_see_their_part_of_its_memory():
    box = simulate("l4")
    for share in shared_out(box, NAMES[:2]).values():
        (card,) = share.hardware.accelerators
        assert card.share == 0.475
        assert card.memory_bytes == int(box.accelerators[0].memory_bytes * 0.475)
        assert card.free_bytes == card.memory_bytes


def test_instances_are_units_and_their_card_keeps_only_those_of_the_provider():
    instances = [MigInstance(f"MIG-{n}", "3g.40gb", 40 * GIB) for n in range(2)]
    box = Hardware(accelerators=[Accelerator("nvidia", 0, mig_enabled=True, mig=instances)])
    shares = shared_out(box, NAMES[:3])
    assert [[each.uuid for each in one.hardware.accelerators[0].mig] for one in shares.values()] == [
        ["MIG-0"],
        ["MIG-1"],
        ["MIG-0"],
    ]
    assert shares["inference/c"].hardware.accelerators[0].mig[0].memory_bytes == int(40 * GIB * 0.475)


def test_without_a_card_everybody_has_the_machine_as_it_is():
    box = simulate("cpu=8")
    for share in shared_out(box, NAMES[:3]).values():
        assert (share.hardware, share.reason) == (box, "this machine has no accelerator")
    asked = Hardware(problems=[Problem("nvidia", "accelerators", "timeout", "hung")])
    assert shared_out(asked, NAMES[:2])["inference/a"].reason == "no accelerator is known"


def test_who_finds_no_room_gets_a_machine_without_cards_and_a_reason():
    found = sharing(simulate("l4"), ["inference/b"], {"inference/a": Placement((0,))})
    share = found.shares["inference/b"]
    assert share.hardware.certainly_no_accelerator
    assert share.hardware.problems[-1].reason == share.reason == "no card has room for it"
    (fault,) = found.faults
    assert (fault.provider, fault.level) == ("inference/b", "warning")


# ------------------------------------------------------------------------------------- placements


def test_a_card_is_named_by_its_index_address_or_uuid():
    box = Hardware(
        accelerators=[
            Accelerator("nvidia", 4, uuid="GPU-AB", pci_bus_id="00000000:3B:00.0", memory_bytes=10 * GIB),
            Accelerator("nvidia", 5, uuid="GPU-CD", pci_bus_id="00000000:AF:00.0", memory_bytes=10 * GIB),
        ]
    )
    for name in (5, "gpu-cd", "af:00.0", "0000:AF:00.0"):
        found = sharing(box, [], {"inference/a": Placement((name,))})
        assert (cards_of(found.shares["inference/a"]), found.faults) == ([5], ())


def test_the_others_take_what_is_left():
    placement = {"inference/a": Placement((0,), 0.6)}
    shares = shared_out(simulate("l40s:2"), NAMES[:2], placement)
    assert [dict(share.units) for share in shares.values()] == [{(0, None): 0.6}, {(1, None): 1.0}]
    shares = shared_out(simulate("l40s"), NAMES[:3], placement)
    assert [share.units[0, None] for share in shares.values()] == [0.6, 0.175, 0.175]
    assert shares["inference/a"].reason == (
        "60 % of card 0, shared with inference/b, inference/c: placed by the stack file"
    )


def test_an_amount_in_bytes_is_its_part_of_the_card():
    box = simulate("l40s")
    shares = shared_out(box, [], {"inference/a": Placement((0,), 9 * GIB), "inference/b": Placement((0,))})
    assert shares["inference/a"].hardware.accelerators[0].memory_bytes == pytest.approx(9 * GIB, abs=1)
    assert shares["inference/b"].units[0, None] == pytest.approx(0.95 - 9 / 45, abs=0.002)


def test_placed_on_no_card_means_none():
    shares = shared_out(simulate("l4"), NAMES[:2], {"inference/a": Placement(())})
    assert shares["inference/a"].hardware.certainly_no_accelerator
    assert shares["inference/b"].units == {(0, None): 1.0}


@pytest.mark.parametrize(
    ("machine", "placement", "said"),
    [
        ("l4:2", {"a": Placement((0, 2))}, "error: there is no card `2` here; there are cards 0-1"),
        ("l4", {"a": Placement(("GPU-1",))}, "error: there is no card `GPU-1` here; there is card 0"),
        ("cpu=4", {"a": Placement((0,))}, "warning: there is no card here that it could be placed on; "),
        (
            "l4",
            {"a": Placement((0,), 0.7), "b": Placement((0,), 0.6)},
            (
                "error: of card 0 a has 0.7, b has 0.6: 1.3 in all is more than all of it;"
                " place at most 0.95 on one card"
            ),
        ),
        (
            "l4:2",
            {"a": Placement(None, 0.9), "b": Placement((0, 1), 0.08)},
            (
                "warning: of cards 0-1 a has 0.9, b has 0.08: 0.98 in all leaves too little for engines to"
                " start side by side; place at most 0.95 on one card"
            ),
        ),
        (
            "l4",
            {"a": Placement((0,), 0.95), "b": Placement((0,))},
            (
                "error: nothing is left of card 0, of which a has 0.95; lower what the others take, or name"
                " another card"
            ),
        ),
        (
            "l4",
            {"a": Placement((0,), 40 * GIB)},
            "error: card 0 has 22.5 GiB, less than 40 GiB; give less, or another card",
        ),
        (
            "gb10",
            {"a": Placement((0,), 40 * GIB)},
            "error: the memory of card 0 is unknown, so 40 GiB is no part of it; give a fraction",
        ),
    ],
)
def test_what_cannot_be_is_said(machine, placement, said):
    faults = sharing(simulate(machine), [], placement).faults
    assert [f"{each.level}: {each.message}; {each.hint}" for each in faults] == [said]


def test_a_hidden_card_is_given_to_nobody():
    box = Hardware(accelerators=[Accelerator("nvidia", 0, visible=False), Accelerator("nvidia", 1)])
    assert cards_of(shared_out(box, NAMES[:2])["inference/a"]) == [1]
    (fault,) = sharing(box, [], {"inference/a": Placement((0,))}).faults
    assert fault.message == "card `0` is hidden by a visibility variable"


# ------------------------------------------------------------------------------ who needs only little


def units_with(box, wants, placement=None, *, little):
    shares = shared_out(simulate(box), wants, placement, little=little)
    return [dict(shares[key].units) for key in sorted({*wants, *(placement or {})})]


def test_who_needs_little_has_a_corner_of_the_last_card_and_the_other_all_the_rest():
    large, small = units_with("h100-80gb-sxm:4", NAMES[:2], little=NAMES[1:2])
    assert small == {(3, None): 0.05}
    assert large == {(0, None): 1.0, (1, None): 1.0, (2, None): 1.0, (3, None): 0.95}
    assert units_with("l4", NAMES[:2], little=NAMES[:1]) == [{(0, None): 0.05}, {(0, None): 0.95}]


def test_several_that_need_little_are_spread_over_the_cards():
    _, *small = units_with("l4:2", NAMES[:4], little=NAMES[1:4])
    assert small == [{(1, None): 0.05}, {(0, None): 0.05}, {(1, None): 0.05}]


def test_who_needs_little_takes_what_a_placement_leaves_before_a_free_card():
    placement = {"inference/a": Placement((0,), 0.6)}
    placed, large, small = units_with("l4:2", NAMES[1:3], placement, little=NAMES[2:3])
    assert (placed, large, small) == ({(0, None): 0.6}, {(1, None): 1.0}, {(0, None): 0.05})


def test_only_such_that_need_little_divide_the_cards_as_others_do():
    assert units_with("l4:2", NAMES[:2], little=NAMES) == [{(0, None): 1.0}, {(1, None): 1.0}]
    share = shared_out(simulate("l4"), NAMES[:2], little=NAMES[1:2])["inference/b"]
    assert share.reason == (
        "5 % of card 0, shared with inference/a: it needs little, and the others have the rest"
    )


# -------------------------------------------------------------------------------------- properties


def cut_up(count: int) -> Hardware:
    """A card in instances, one of unknown size, and a hidden one."""
    instances = [MigInstance(str(number), "1g", 10 * GIB) for number in range(count)]
    return Hardware(
        accelerators=[
            Accelerator("nvidia", 0, mig_enabled=True, mig=instances),
            Accelerator("nvidia", 1, memory_kind="unified"),
            Accelerator("nvidia", 2, memory_bytes=GIB, visible=False),
        ]
    )


boxes = st.sampled_from(
    [
        *(simulate(f"l40s:{count}") for count in range(1, 9)),
        *(simulate(f"h100-80gb-sxm:{count},numa=2,cpu=32") for count in range(2, 9)),
        *(cut_up(count) for count in range(1, 8)),
    ]
)
wanting = st.lists(st.sampled_from(NAMES), unique=True, min_size=1)
placed = st.builds(
    Placement,
    st.none() | st.lists(st.integers(0, 4), max_size=3, unique=True).map(tuple),
    st.none() | st.floats(0.05, 0.9).map(lambda part: round(part, 2)),
)
placements = st.dictionaries(st.sampled_from(NAMES), placed, max_size=4)


@given(boxes, wanting, placements, st.sets(st.sampled_from(NAMES)))
def test_shares_fit_and_everybody_has_one_or_a_reason(box, wants, placement, little):
    found = sharing(box, wants, placement, little=little)
    assert set(found.shares) == {*wants, *placement}
    of: dict = {}
    for key, share in found.shares.items():
        assert share.reason
        assert share.units or share.hardware.certainly_no_accelerator
        for unit, part in share.units.items():
            of.setdefault(unit, {})[key] = part
            assert box.accelerators[unit[0]].visible is not False
            total = unit_memory(box, unit)
            card = next(each for each in share.hardware.accelerators if each.index == unit[0])
            mine = card if unit[1] is None else next(one for one in card.mig if one.uuid == str(unit[1]))
            assert mine.memory_bytes == (None if total is None else int(total * part))
            assert mine.share == part
    for parts in of.values():
        much = sum(parts.values())
        asked = sum(placement[key].memory or 0 for key in parts if key in placement)
        # Only what the operator wrote may be too much, and that is told.
        others = [key for key in parts if key in placement or parts[key] > LEAST_SHARE or key not in little]
        assert much <= max(1.0 if len(others) <= 1 else SHARED_LIMIT, asked) + 1e-9
        if much > SHARED_LIMIT + 1e-9 and len(others) > 1:
            assert any("in all" in fault.message for fault in found.faults)
    for key in wants:
        if key not in placement and not found.shares[key].units:
            assert key in {fault.provider for fault in found.faults}
    if set(wants) - placement.keys() - little:
        for key in set(wants) & little - placement.keys():
            assert sum(found.shares[key].units.values()) in {0, LEAST_SHARE}


@given(boxes, wanting, placements)
def test_what_the_operator_placed_is_what_is_given(box, wants, placement):
    shares = shared_out(box, wants, placement)
    for key, asked in placement.items():
        given_units = shares[key].units
        if asked.memory is not None:
            assert all(part == asked.memory for part in given_units.values())
        if asked.cards is not None:
            assert {box.accelerators[place].index for place, _ in given_units} <= set(asked.cards)


@given(boxes, st.permutations(NAMES[:5]), placements, st.randoms())
def test_the_order_of_providers_and_placements_does_not_matter(box, wants, placement, random):
    other = list(placement.items())
    random.shuffle(other)
    for little in ((), NAMES[1:3]):
        here = sharing(box, wants, placement, little=little)
        assert here == sharing(box, sorted(wants), dict(other), little=little[::-1])


@given(st.integers(1, 8), st.integers(1, 8))
def test_without_placements_nobody_goes_without_and_no_card_lies_idle(cards, providers):
    assume(providers <= cards * math.floor(SHARED_LIMIT / LEAST_SHARE))
    shares = shared_out(simulate(f"l40s:{cards}"), NAMES[:providers])
    assert all(share.units for share in shares.values())
    assert {unit for share in shares.values() for unit in share.units} == {(n, None) for n in range(cards)}
