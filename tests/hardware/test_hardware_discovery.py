"""All detectors together: merging, order, the fingerprint; and the codec."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import linux, write, x86

from stackconf.errors import InvalidConfig
from stackconf.hardware import facts
from stackconf.hardware.codec import fact_from_dict, fact_to_dict, from_dict, to_dict
from stackconf.hardware.discovery import BUILTIN, discover, fingerprint, merge, start
from stackconf.hardware.facts import (
    Accelerator,
    Cpu,
    Hardware,
    Host,
    Limit,
    Memory,
    MigInstance,
    Problem,
    Visibility,
)
from stackconf.hardware.probe import Detector
from stackconf.testing import machine, no_hardware

A, B = Detector("a", "a"), Detector("b", "b")

# ------------------------------------------------------------------------------ discover


def test_this_machine():
    hardware = discover()
    assert hardware.host.os == "Linux"
    assert hardware.cpu.usable_cores
    assert hardware.memory.usable_bytes
    assert hardware.accelerators or any(one.fact == "accelerators" for one in hardware.problems)
    assert fingerprint(discover()) == fingerprint(hardware)


def test_another_machine(tmp_path):
    root = write(tmp_path, linux(), x86(sockets=2, cores=8))
    hardware = discover([BUILTIN[0]], root=root)
    assert (hardware.cpu.sockets, hardware.cpu.physical_cores) == (2, 16)
    assert hardware.problems == ()


def test_all_detectors_run_at_once(tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\nfrom stackconf import hookimpl\n"
        "@hookimpl\ndef discover_hardware():\n    time.sleep(60)\n",
        encoding="utf-8",
    )
    other = tmp_path / "other.py"
    other.write_text(slow.read_text(encoding="utf-8"), encoding="utf-8")
    started = time.monotonic()
    pending = start([*BUILTIN, Detector("slow", str(slow)), Detector("other", str(other))], deadline=4)
    assert time.monotonic() - started < 3
    hardware = pending.result()
    assert time.monotonic() - started < 7.9
    assert hardware.host.os == "Linux"
    timeouts = [one.detector for one in hardware.problems if one.kind == "timeout"]
    assert timeouts == ["other", "slow"]
    assert pending.result() is hardware


def test_a_target_named_twice_runs_once(tmp_path):
    counter = tmp_path / "count"
    file = tmp_path / "count.py"
    file.write_text(
        "from stackconf import hookimpl\n@hookimpl\ndef discover_hardware():\n"
        f"    open({str(counter)!r}, 'a').write('x')\n    return []\n",
        encoding="utf-8",
    )
    discover([Detector("one", str(file)), Detector("two", str(file))])
    assert counter.read_text(encoding="utf-8") == "x"


def test_importing_costs_no_heavy_library():
    code = (
        "import sys, stackconf.hardware.discovery, stackconf.hardware.codec\n"
        "print(sorted({'psutil', 'pynvml', 'pydantic', 'yaml', 'asyncio', 'importlib.metadata', 'subprocess',"
        " 'ctypes'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert told.stdout.strip() == "[]"


def test_the_host_is_known_without_psutil():
    code = (
        "import sys\nfrom stackconf.hardware.host import discover_hardware\nlist(discover_hardware())\n"
        "print(sorted({'psutil', 'subprocess', 'ctypes'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True
    )
    assert told.stdout.strip() == "[]"


# ------------------------------------------------------------------------------ merge


def test_the_same_card_from_two_detectors_is_one():
    ours = Accelerator("nvidia", index=0, uuid="GPU-1", memory_bytes=80)
    theirs = Accelerator("nvidia", uuid="GPU-1", numa_node=1, memory_bytes=80)
    hardware = merge([(A, [ours]), (B, [theirs])])
    assert hardware.accelerators == (attrs.evolve(ours, numa_node=1),)
    assert hardware.problems == ()


def test_the_same_address_in_two_spellings_is_one_card():
    ours = Accelerator("nvidia", uuid="GPU-1", pci_bus_id="00000000:3B:00.0", pci_device_id="10DE:2330")
    theirs = Accelerator("nvidia", pci_bus_id="0000:3b:00.0", pci_device_id="10de:2330", name="H100")
    hardware = merge([(A, [ours]), (B, [theirs])])
    assert hardware.accelerators == (attrs.evolve(ours, name="H100"),)
    assert hardware.problems == ()


def test_a_disagreement_is_a_problem_and_the_first_counts():
    hardware = merge(
        [(A, [Accelerator("x", uuid="U", memory_bytes=1)]), (B, [Accelerator("x", uuid="U", memory_bytes=2)])]
    )
    assert hardware.accelerators[0].memory_bytes == 1
    assert hardware.problems == (
        Problem("b", "accelerators.U.memory_bytes", "error", "a says 1, b says 2; the first counts"),
    )


def test_what_is_free_may_differ_without_a_problem():
    cards = [[Accelerator("x", uuid="U", free_bytes=free)] for free in (1, 2)]
    hardware = merge(zip((A, B), cards, strict=True))
    assert hardware.accelerators[0].free_bytes == 1
    assert hardware.problems == ()


def test_a_site_plugin_fills_in_what_the_host_could_not_say():
    ours = [Cpu(logical_cores=8), Host(os="Linux")]
    theirs = [Cpu(model="Acme 9000", logical_cores=9), Memory(total_bytes=5)]
    hardware = merge([(A, ours), (B, theirs)])
    assert (hardware.cpu.model, hardware.cpu.logical_cores) == ("Acme 9000", 8)
    assert hardware.memory.total_bytes == 5
    assert [problem.fact for problem in hardware.problems] == ["cpu.logical_cores"]


def test_a_detector_may_tell_more_of_the_same_card_later():
    first = Accelerator("x", index=0, mig=(MigInstance("M"),))
    later = attrs.evolve(first, memory_bytes=7, mig=(MigInstance("M", "1g.10gb"),))
    hardware = merge([(A, [first, Accelerator("x", index=1), later])])
    assert hardware.accelerators == (later, Accelerator("x", index=1))
    assert hardware.problems == ()


def test_parts_of_one_card_with_uuids_of_their_own_stay_apart():
    parts = [Accelerator("amd", uuid=f"U{n}", pci_bus_id="0000:01:00.0") for n in range(2)]
    assert len(merge([(A, parts)]).accelerators) == 2


def test_cards_that_nothing_tells_apart_are_not_merged():
    assert len(merge([(A, [Accelerator("x"), Accelerator("x")]), (B, [Accelerator("x")])]).accelerators) == 3


cards = st.builds(
    Accelerator,
    vendor=st.sampled_from(["nvidia", "amd"]),
    index=st.none() | st.integers(0, 3),
    uuid=st.none() | st.text("abc", min_size=1, max_size=1),
    pci_bus_id=st.none() | st.sampled_from(["0000:01:00.0", "00000000:01:00.0", "0000:02:00.0"]),
)


@settings(deadline=None)
@given(st.lists(cards, max_size=6))
def test_the_order_does_not_depend_on_who_comes_first_within_a_report(listed):
    unique = list({(card.vendor, card.index, card.uuid): card for card in listed}.values())
    distinct = [card for card in unique if card.index is None and card.uuid is None]
    forwards, backwards = merge([(A, distinct)]), merge([(A, distinct[::-1])])
    assert forwards == backwards


# ------------------------------------------------------------------------------ fingerprint


def test_the_fingerprint_leaves_out_what_comes_and_goes():
    base = machine(cpu_quota=2.5, memory_limit_gib=8, accelerators=[Accelerator("x", uuid="U", free_bytes=1)])
    base = attrs.evolve(base, cpu=attrs.evolve(base.cpu, numa=(facts.NumaNode(0, (0, 1), 5),)))
    later = attrs.evolve(
        base,
        host=attrs.evolve(base.host, cgroup_path="/session-7.scope"),
        cpu=attrs.evolve(
            base.cpu,
            limits=(Limit(2.5, "elsewhere"),),
            bound_by="elsewhere",
            numa=(facts.NumaNode(0, (0, 1), 6),),
        ),
        memory=attrs.evolve(base.memory, available_bytes=3),
        accelerators=(Accelerator("x", uuid="U", free_bytes=2),),
    )
    assert fingerprint(later) == fingerprint(base)


@pytest.mark.parametrize(
    "changed",
    [
        machine(cores=4),
        machine(memory_gib=31),
        machine(cpu_quota=3),
        machine(isa=["avx2"]),
        machine(accelerators=[Accelerator("x")]),
        attrs.evolve(machine(), visibility=(Visibility("CUDA_VISIBLE_DEVICES", ""),)),
        attrs.evolve(machine(), problems=()),
        no_hardware(),
    ],
)
def test_the_fingerprint_follows_what_stays(changed):
    assert fingerprint(changed) != fingerprint(machine())


def test_the_words_of_a_problem_do_not_count():
    one, other = (Hardware(problems=(Problem("a", "b", "error", text),)) for text in ("x", "y"))
    assert fingerprint(one) == fingerprint(other)


def test_the_fingerprint_is_the_same_everywhere():
    assert fingerprint(Hardware()) == "6871fd97fb0b435d9bc048ea10ce3dd003561506181d751eede53d12e9df5779"


# ------------------------------------------------------------------------------ codec


def anything(cls: type) -> st.SearchStrategy:
    """Any instance of a class of facts, from its annotations."""
    amounts = st.floats(allow_nan=False, allow_infinity=False) | st.integers()
    known = {"amount": amounts, "usable_cores": st.none() | amounts}
    return st.builds(cls, **{item.name: known[item.name] for item in attrs.fields(cls) if item.name in known})


for _cls in (
    facts.NumaNode,
    facts.Limit,
    facts.MigInstance,
    Host,
    Cpu,
    Memory,
    Accelerator,
    Problem,
    Visibility,
):
    attrs.resolve_types(_cls)
attrs.resolve_types(Hardware)

machines_of_any_kind = st.builds(
    Hardware,
    host=anything(Host),
    cpu=st.builds(
        Cpu,
        usable_cores=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        affinity=st.none() | st.lists(st.integers(), max_size=4).map(tuple),
        limits=st.lists(anything(Limit), max_size=3).map(tuple),
        isa=st.none() | st.frozensets(st.text(max_size=5), max_size=4),
        numa=st.none() | st.lists(st.builds(facts.NumaNode), max_size=2).map(tuple),
    ),
    memory=st.builds(Memory, limits=st.lists(anything(Limit), max_size=3).map(tuple)),
    accelerators=st.lists(st.builds(Accelerator), max_size=3).map(tuple),
    visibility=st.lists(st.builds(Visibility), max_size=3).map(tuple),
    problems=st.lists(st.builds(Problem), max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(machines_of_any_kind)
def test_every_machine_comes_back_exactly(hardware):
    again = from_dict(json.loads(json.dumps(to_dict(hardware))))
    assert again == hardware
    # Not part of equality, yet part of what is told.
    assert again.memory.available_bytes == hardware.memory.available_bytes
    assert [one.free_bytes for one in again.accelerators] == [one.free_bytes for one in hardware.accelerators]
    assert isinstance(again.accelerators, tuple)
    assert again.cpu.isa is None or isinstance(again.cpu.isa, frozenset)


@settings(max_examples=60, deadline=None)
@given(st.builds(Accelerator) | st.builds(Problem) | st.builds(Visibility) | anything(Host))
def test_every_fact_comes_back_exactly(fact):
    assert fact_from_dict(json.loads(json.dumps(fact_to_dict(fact)))) == fact


def test_this_machine_comes_back_exactly():
    hardware = discover()
    assert from_dict(json.loads(json.dumps(to_dict(hardware)))) == hardware


def test_lists_where_tuples_belong_are_taken():
    hardware = Hardware(accelerators=[Accelerator("x")])  # type: ignore[arg-type]
    assert from_dict(to_dict(hardware)).accelerators == (Accelerator("x"),)


def test_what_is_left_out_is_unknown():
    assert from_dict({"version": 1}) == Hardware()
    assert from_dict({"version": 1, "cpu": {"logical_cores": 4}}).cpu == Cpu(logical_cores=4)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ([], "hardware: expected a mapping, not list []"),
        ({}, "hardware: version NoneType None cannot be read; this stackconf reads version 1"),
        ({"version": 2}, "hardware: version int 2 cannot be read"),
        ({"version": True}, "hardware: version bool True cannot be read"),
        ({"version": 1, "gpus": []}, "hardware: unknown key `gpus`; known are: accelerators, cpu"),
        ({"version": 1, "cpu": {"coress": 4}}, "hardware: cpu: unknown key `coress`"),
        ({"version": 1, "cpu": 4}, "hardware: cpu: expected a mapping, not int 4"),
        (
            {"version": 1, "cpu": {"logical_cores": "4"}},
            "cpu.logical_cores: expected a whole number, not str",
        ),
        ({"version": 1, "cpu": {"logical_cores": True}}, "cpu.logical_cores: expected a whole number"),
        ({"version": 1, "cpu": {"isa": "avx2"}}, "cpu.isa: expected a list, not str 'avx2'"),
        ({"version": 1, "cpu": {"usable_cores": float("inf")}}, "cpu.usable_cores: expected a finite number"),
        ({"version": 1, "host": {"cgroup": "v3"}}, "host.cgroup: expected one of v1, v2, hybrid, none"),
        ({"version": 1, "accelerators": [{}]}, "accelerators[0]: `vendor` is missing"),
        (
            {"version": 1, "accelerators": [{"vendor": "x", "compute_capability": [9]}]},
            "accelerators[0].compute_capability: expected 2 values, not 1",
        ),
        (
            {"version": 1, "accelerators": [{"vendor": "x", "mig": [{"uuid": 5}]}]},
            "accelerators[0].mig[0].uuid: expected text, not int 5",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line_that_says_where(given_, said):
    with pytest.raises(InvalidConfig) as caught:
        from_dict(given_)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(any_json)
def test_reading_anything_raises_only_invalid_config(value):
    for told in (value, {"version": 1, "cpu": value}, {"version": 1, "accelerators": value}):
        with contextlib.suppress(InvalidConfig):
            assert isinstance(from_dict(told), Hardware)
