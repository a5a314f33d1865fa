"""Machines from an expression: any valid one reads back, and garbage is one clear line."""

from __future__ import annotations

import json
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import stackconf
import stackconf.hardware
from stackconf.errors import InvalidConfig
from stackconf.hardware.catalog import MIB, catalogue
from stackconf.hardware.codec import from_dict, to_dict
from stackconf.hardware.discovery import fingerprint
from stackconf.hardware.simulation import KEYS, UNITS, Expression, simulate
from stackconf.hardware.sizing import compute_threads

GIB = 1024**3
SLUGS = list(catalogue().models)
NVLINK = [slug for slug in SLUGS if str(catalogue().models[slug].nominal.link_kind).startswith("nvlink")]
NVIDIA = [slug for slug in SLUGS if catalogue().models[slug].vendor == "nvidia"]

versions = st.lists(st.integers(0, 999), min_size=1, max_size=3).map(lambda parts: ".".join(map(str, parts)))
sizes = st.one_of(
    st.integers(1, 2**50),
    st.builds(lambda count, unit: count * unit, st.integers(1, 900), st.sampled_from([2**30, 2**40, 10**9])),
)


@st.composite
def expressions(draw):
    slugs = draw(st.lists(st.sampled_from(SLUGS), unique=True, max_size=3))
    cards = tuple((slug, draw(st.integers(1, 16))) for slug in slugs)
    cores = draw(
        st.none()
        | st.tuples(st.integers(1, 300), st.integers(1, 8)).map(lambda pair: (pair[0], pair[0] * pair[1]))
    )
    memory = draw(st.none() | sizes)
    nvidia = bool(set(slugs) & set(NVIDIA))
    allowed = [None, False, *([True] if set(slugs) & set(NVLINK) else [])] if nvidia else [None]
    return Expression(
        cards=cards,
        cores=cores,
        memory=memory,
        numa=draw(st.none() | st.integers(1, min(cores[0], 16))) if cores else None,
        quota=draw(st.none() | st.integers(1, 10**8).map(lambda n: Fraction(n, 10**6))) if cores else None,
        limit=draw(st.none() | sizes) if memory else None,
        nvlink=draw(st.sampled_from(allowed)),
        cuda=draw(st.none() | versions) if nvidia else None,
        driver=draw(st.none() | versions) if nvidia else None,
    )


@given(expressions())
def test_any_valid_expression_reads_back(said):
    text = str(said)
    if not text:
        with pytest.raises(InvalidConfig, match="empty"):
            Expression.parse(text)
        return
    assert Expression.parse(text) == said
    assert str(Expression.parse(text)) == text
    messy = f" {text.replace(',', ' , ').replace('=', ' = ').upper()} "
    assert Expression.parse(messy) == said


@settings(max_examples=60)
@given(expressions().filter(str))
def test_a_simulated_machine_is_consistent_and_survives_a_file(said):
    box = simulate(str(said))
    assert simulate(box.provenance.expression) == box
    again = from_dict(json.loads(json.dumps(to_dict(box))))
    assert again == box
    assert again.provenance == box.provenance
    assert [card.nominal for card in again.accelerators] == [card.nominal for card in box.accelerators]
    assert fingerprint(again) == fingerprint(box)
    _consistent(box)


def _consistent(box):
    cpu, memory = box.cpu, box.memory
    if cpu.logical_cores is not None:
        assert 1 <= cpu.usable_physical_cores <= cpu.physical_cores <= cpu.logical_cores == len(cpu.affinity)
        assert 0 < cpu.usable_cores <= cpu.logical_cores
        if cpu.numa is not None:
            assert [n for node in cpu.numa for n in node.cpus] == list(cpu.affinity)
            assert memory.total_bytes is None or sum(n.memory_bytes for n in cpu.numa) == memory.total_bytes
    if memory.total_bytes is not None:
        assert 0 < memory.usable_bytes <= memory.total_bytes
    cards = box.accelerators
    assert [card.index for card in cards] == list(range(len(cards)))
    for card in cards:
        for peer in card.nvlink_peers or ():
            assert peer != card.index
            assert card.index in cards[peer].nvlink_peers
    assert box.certainly_no_accelerator == (not cards)
    if cpu.physical_cores is None:
        assert any(each.fact == "cpu" for each in box.problems)
    if memory.total_bytes is None:
        assert any(each.fact == "memory" for each in box.problems)


WORDS = st.sampled_from(
    [*SLUGS, *KEYS, *UNITS, *"0189=:,/-. \x00٣", "96", "1e9", "nan", "G", "yes", "no", "9" * 24]
)


@settings(max_examples=400)
@given(st.one_of(st.text(max_size=60), st.lists(WORDS, max_size=12).map("".join)))
@example("cpu=" + "9" * 5000)
@example("l4:" + "1" * 500)
@example("memory=1." + "0" * 400 + "1GiB")
@example("," * 900)
@example("=" * 900)
def test_garbage_is_one_clear_line(text):
    said = ""
    try:
        box = simulate(text)
        assert simulate(box.provenance.expression) == box
    except InvalidConfig as error:
        said = str(error)
    assert len(said) < 700


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "an empty expression describes no machine"),
        ("l4,", "nothing stands between two commas"),
        ("h100", "did you mean `h100-80gb-sxm` or `h100-80gb-pcie` or `h100-94gb-nvl`?"),
        ("l40z", "did you mean `l40`?"),
        ("qqqqqqqq", "`stackconf hardware --catalogue` lists the cards"),
        ("l4:0", "`l4:0`: the count of cards: expected 1 to 1024, not 0"),
        ("l4:many", "expected a whole number, not `many`"),
        ("l4,l4", "l4 is given twice; write `l4:2`"),
        ("l4:1024,t4", "that makes more than 1024 cards"),
        ("memroy=1GiB", "no key `memroy`; did you mean `memory`?"),
        ("gpus=8", "no key `gpus`; there are cpu, memory, numa"),
        ("cpu=4,cpu=5", "cpu is given twice"),
        ("cpu=0", "expected 1 to 65536, not 0"),
        ("cpu=96/48", "expected physical/logical as in 96/192"),
        ("cpu=4/64", "expected physical/logical"),
        ("memory=64", "the unit is missing"),
        ("memory=64G", "`G` has two meanings; write 64GiB or 64GB"),
        ("memory=64k", "`k` has two meanings; write 64KiB or 64kB"),
        ("memory=64XB", "no unit `XB`"),
        ("memory=0GiB", "expected 1 B to 1 PiB"),
        ("memory=0.3B", "no whole number of bytes"),
        ("memory=-1GiB", "expected an amount with its unit"),
        ("cpu=4,quota=0", "expected more than 0 CPUs"),
        ("quota=2", "`quota` divides the processors; say how many there are: cpu=N"),
        ("numa=2", "`numa` divides the processors"),
        ("cpu=2,numa=4", "there are only 2 physical cores to divide"),
        ("limit=1GiB", "say how much there is: memory=64GiB"),
        ("l40s:2,nvlink=yes", "l40s has no NVLink"),
        ("l40s,nvlink=maybe", "expected yes or no, not `maybe`"),
        ("cpu=4,nvlink=no", "`nvlink` is about NVIDIA cards, and the expression has none"),
        ("mi300x,cuda=12.8", "`cuda` is about NVIDIA cards"),
        ("l4,cuda=latest", "expected a version, as in 12.8"),
        ("l4" * 600, "at most 1000 characters"),
    ],
)
def test_a_mistake_says_what_to_write(text, said):
    with pytest.raises(InvalidConfig) as caught:
        simulate(text)
    assert said in str(caught.value)


def test_a_whole_machine():
    box = simulate(
        "h100-80gb-sxm:8,cpu=96/192,memory=1TiB,numa=2,quota=150.5,limit=512GiB,cuda=12.8,driver=570.148"
    )
    assert len(box.accelerators) == 8
    card = box.accelerators[7]
    assert (card.name, card.pci_device_id) == ("NVIDIA H100 80GB HBM3", "10de:2330")
    assert card.memory_bytes == 81559 * MIB
    assert card.compute_capability == (9, 0)
    assert (card.runtime_version, card.driver_version) == ("12.8", "570.148")
    assert [card.numa_node for card in box.accelerators] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert card.nvlink_peers == (0, 1, 2, 3, 4, 5, 6)
    assert card.nominal.slug == "h100-80gb-sxm"
    assert (box.cpu.usable_cores, box.cpu.usable_physical_cores) == (150.5, 96)
    assert box.cpu.bound_by == "the simulated quota"
    assert (box.memory.usable_bytes, box.memory.bound_by) == (512 * GIB, "the simulated limit")
    assert compute_threads(box).value == 96


def test_cores_without_threads_and_a_limit_that_binds_nothing():
    box = simulate("cpu=4,memory=16GiB,quota=8,limit=32GiB")
    assert (box.cpu.logical_cores, box.cpu.usable_cores, box.cpu.limits) == (4, 4.0, ())
    assert (box.memory.usable_bytes, box.memory.bound_by) == (16 * GIB, "total")
    assert box.certainly_no_accelerator


def test_what_is_not_said_is_unknown_and_not_zero():
    box = simulate("l4")
    assert box.cpu.usable_cores is box.memory.usable_bytes is box.host.os is None
    assert not box.certainly_no_accelerator
    assert {each.fact for each in box.problems} == {"cpu", "memory", "host"}


def test_links_are_those_of_the_model_and_a_bridge_must_be_asked_for():
    peers = {
        text: [card.nvlink_peers for card in simulate(text).accelerators]
        for text in ("a100-40gb-sxm:2", "a100-40gb-sxm:2,nvlink=no", "l40s:2", "h100-94gb-nvl:3",
                     "h100-94gb-nvl:3,nvlink=yes", "l4,h200-141gb-sxm:2", "mi300x")
    }  # fmt: skip
    assert peers == {
        "a100-40gb-sxm:2": [(1,), (0,)],
        "a100-40gb-sxm:2,nvlink=no": [(), ()],
        "l40s:2": [(), ()],
        "h100-94gb-nvl:3": [(), (), ()],
        "h100-94gb-nvl:3,nvlink=yes": [(1,), (0,), ()],
        "l4,h200-141gb-sxm:2": [(), (2,), (1,)],
        "mi300x": [None],
    }


def test_a_card_that_shares_the_hosts_memory_has_no_amount_of_its_own():
    box = simulate("gb10,cpu=20,memory=128GB")
    assert box.accelerators[0].memory_bytes is None
    assert box.accelerators[0].memory_kind == "unified"
    assert any(each.fact == "accelerators.0.memory_bytes" for each in box.problems)


def test_it_is_a_public_name_twice():
    assert stackconf.simulate is stackconf.hardware.simulate is simulate
