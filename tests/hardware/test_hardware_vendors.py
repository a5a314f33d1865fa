"""Detectors of other cards than NVIDIA's: beside the machines of test_hardware_machines.py, what
can be wrong with them.

The amdsmi of these tests is written here, in the form of the real one's answers; the one that prints
and raises `KeyError` does as the real one was seen to do without ROCm.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping

import pytest
from machines import kfd, linux, pci, write, x86
from machines.boxes import BOXES

from stackconf.hardware.amd import read_amd
from stackconf.hardware.amd_visibility import seen
from stackconf.hardware.apple import read_apple
from stackconf.hardware.applying import without_asking
from stackconf.hardware.discovery import BUILTIN, discover, merge
from stackconf.hardware.facts import Accelerator, Hardware, Problem
from stackconf.hardware.files import Files
from stackconf.hardware.intel import read_intel
from stackconf.hardware.pci import Glance
from stackconf.hardware.probe import Answer, Detector, run

AMD = next(detector for detector in BUILTIN if detector.name == "amd")
MIB = 1024**2
ONE = pci(
    "0000:05:00.0", "0x1002", "0x74a1", driver="amdgpu", node=0, cpus="0-3", kind="0x120000",
    mem_info_vram_total=str(1000 * MIB), mem_info_vram_used=str(MIB),
) | kfd(
    1, cpu_cores_count=0, simd_count=1216, simd_per_cu=4, gfx_target_version=90402, device_id=0x74A1,
    location_id=0x05 << 8, domain=0, unique_id=0xABC,
)  # fmt: skip


def amd(root, *trees: Mapping[str, str], ask_library: bool = False, **environment: str) -> Hardware:
    files = Files(write(root, *trees), "amd")
    return merge([(AMD, list(read_amd(files, environment, ask_library=ask_library)))])


def reasons(hardware: Hardware) -> dict[str, str]:
    return {problem.fact: problem.reason for problem in hardware.problems}


# -------------------------------------------------------------------------------- none there


def test_detectors_of_cards_that_are_not_here_start_no_process(tmp_path, monkeypatch):
    """Nor does graphics within a processor of Intel's start one."""
    started = []
    monkeypatch.setattr(
        "stackconf.hardware.probe.ask", lambda detector, **_: started.append(detector.name) or Answer([])
    )
    integrated = pci("0000:00:02.0", "0x8086", "0xa780", driver="i915", kind="0x030000")
    root = write(tmp_path, linux(), x86(), integrated, pci("0000:3b:00.0", "0x10de", "0x2330"))
    other = Detector("other", "other.module")
    assert discover([*BUILTIN, other], root=root).accelerators == ()
    assert sorted(started) == ["host", "nvidia", "other"]


@pytest.mark.parametrize(
    ("name", "asked"), [("8x-mi300x", "amd"), ("amd-apu", "amd"), ("intel-arc", "intel")]
)
def test_detectors_of_cards_that_are_here_do(tmp_path, monkeypatch, name, asked):
    started = []
    monkeypatch.setattr(
        "stackconf.hardware.probe.ask", lambda detector, **_: started.append(detector.name) or Answer([])
    )
    discover(root=write(tmp_path, BOXES[name].tree))
    assert sorted(started) == sorted(["host", "nvidia", asked])


class Real(Files):
    """The files of a folder, taken for this machine's own."""

    @property
    def real(self) -> bool:
        return True

    def place(self, path: str) -> str:
        return f"{self.root}/{path.lstrip('/')}"


ABSENT = Problem("nvidia", "accelerators", "absent", "no NVIDIA card on the PCI bus, and no NVIDIA driver")
BUS = {"/sys/bus/pci/.keep": ""}


@pytest.mark.parametrize(
    ("tree", "answer"),
    [
        (BUS, [ABSENT]),
        ({}, None),
        (BUS | {"/dev/nvidiactl": ""}, None),
        (BUS | {"/dev/dxg": ""}, None),
        (BUS | {"/proc/driver/nvidia/version": "NVRM"}, None),
        (pci("0000:3b:00.0", "0x10de", "0x2330", kind="0x030200"), None),
        (pci("0000:01:00.1", "0x10de", "0x228b", kind="0x040300"), [ABSENT]),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="other systems are always asked")
def test_nvidias_driver_is_asked_where_there_may_be_one(tmp_path, tree, answer):
    """Not because of a card's sound, nor without a sysfs that would say so."""
    glance = Glance(Real(write(tmp_path, {"/etc/hostname": "box"}, tree)))
    assert without_asking("stackconf.hardware.nvidia", "nvidia", glance) == answer


def test_another_plugin_is_always_asked(tmp_path):
    assert without_asking("acme.cards", "acme", Glance(Files(tmp_path))) is None


def test_nothing_is_said_where_nothing_is(tmp_path):
    assert amd(tmp_path, linux()) == Hardware()
    assert list(read_intel(Files(tmp_path, "intel"), {"ZE_AFFINITY_MASK": "0"})) == []
    assert list(read_apple(lambda: '{"SPDisplaysDataType": []}')) == []


# --------------------------------------------------------------------------------------- AMD


def test_a_partitioned_card_is_several_of_their_own_memory(tmp_path):
    bank = "/sys/class/kfd/kfd/topology/nodes/{}/mem_banks/0/properties"
    second = {path.replace("nodes/1", "nodes/2"): text for path, text in ONE.items()}
    banks = {bank.format(n): f"heap_type 1\nsize_in_bytes {500 * MIB}\n" for n in (1, 2)}
    first, other = amd(tmp_path, second, ONE, banks).accelerators
    assert (first.memory_bytes, other.memory_bytes) == (500 * MIB, 500 * MIB)
    assert first.pci_bus_id == other.pci_bus_id == "0000:05:00.0"
    assert [first.index, other.index] == [0, 1]


def test_without_the_kernels_topology_the_driver_alone_is_asked(tmp_path):
    tree = {path: text for path, text in ONE.items() if "kfd" not in path}
    hardware = amd(tmp_path, tree)
    (card,) = hardware.accelerators
    assert (card.memory_bytes, card.pci_device_id, card.architecture) == (1000 * MIB, "1002:74a1", None)
    assert "accelerators.architecture" in reasons(hardware)


@pytest.mark.parametrize("garbage", ["", "many", "-1", "9" * 40, "\udcff"])
def test_garbage_in_the_kernels_files_costs_facts_and_no_more(tmp_path, garbage):
    root = write(tmp_path, ONE, kfd(1, {1: 11, 2: 2}))
    for file in [*root.rglob("properties"), *root.rglob("mem_info*"), *root.rglob("local_cpulist")]:
        file.write_bytes(f"simd_count 4\nnode_to {garbage}\n{garbage}\n".encode(errors="surrogateescape"))
    (card,) = amd(tmp_path).accelerators
    assert (card.vendor, card.memory_bytes, card.near_cpus) == ("amd", None, None)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """Puts a module `amdsmi` on the path."""

    def put(text: str) -> None:
        folder = tmp_path / "site"
        folder.mkdir()
        (folder / "amdsmi.py").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "amdsmi", raising=False)

    yield put
    sys.modules.pop("amdsmi", None)


WORKING = """
from enum import IntEnum
AmdSmiVramType = IntEnum("AmdSmiVramType", {"UNKNOWN": 0, "HBM": 1, "HBM3": 4, "DDR4": 12, "GDDR6": 22})
def amdsmi_init(): pass
def amdsmi_get_processor_handles(): return ["h"]
def amdsmi_get_gpu_device_bdf(handle): return "0000:05:00.0"
def amdsmi_get_gpu_asic_info(handle): return {"market_name": "AMD Instinct MI300X", "vendor_id": 4098}
def amdsmi_get_gpu_driver_info(handle): return {"driver_name": "amdgpu", "driver_version": "6.10.5"}
def amdsmi_get_gpu_vram_info(handle): return {"vram_type": 4, "vram_size": 1000}
"""


def test_amdsmi_adds_what_the_kernel_left_open(tmp_path, library):
    library(WORKING)
    (card,) = amd(tmp_path / "box", ONE, ask_library=True).accelerators
    assert (card.name, card.driver_version, card.memory_kind) == (
        "AMD Instinct MI300X", "6.10.5", "dedicated"
    )  # fmt: skip
    assert card.memory_bytes == 1000 * MIB


@pytest.mark.parametrize(
    "text",
    [
        "print('Unable to find libamd_smi.so')\nraise KeyError('libamd_smi.so')",
        "raise SystemExit(3)",
        "def amdsmi_init(): raise RuntimeError('no permission')",
        "",
    ],
)
def test_an_amdsmi_that_does_not_work_costs_one_problem(tmp_path, library, text):
    library(text)
    hardware = amd(tmp_path / "box", ONE, ask_library=True)
    assert hardware.accelerators[0].memory_bytes == 1000 * MIB
    assert "amdsmi cannot be used" in reasons(hardware)["accelerators.amdsmi"]


@pytest.mark.parametrize(
    ("number", "kind"), [(0, None), (1, "dedicated"), (12, "unified"), (22, "dedicated"), (99, None)]
)
def test_the_type_of_its_memory_says_whose_it_is(tmp_path, library, number, kind):
    library(WORKING.replace('"vram_type": 4', f'"vram_type": {number}'))
    assert amd(tmp_path / "box", ONE, ask_library=True).accelerators[0].memory_kind == kind


def test_calls_of_amdsmi_that_fail_cost_their_own_facts(tmp_path, library):
    library(WORKING.replace('return {"market_name": "AMD Instinct MI300X", "vendor_id": 4098}', "1 / 0"))
    (card,) = amd(tmp_path / "box", ONE, ask_library=True).accelerators
    assert (card.name, card.driver_version) == (None, "6.10.5")


def test_an_amdsmi_that_hangs_leaves_what_the_kernel_said(tmp_path, library):
    """In its own process, as a plugin: the deadline ends it."""
    library(WORKING.replace("def amdsmi_init(): pass", "import time\ndef amdsmi_init(): time.sleep(60)"))
    box = write(tmp_path / "box", ONE)
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from pathlib import Path\nfrom stackconf import hookimpl\n"
        "from stackconf.hardware.amd import read_amd\nfrom stackconf.hardware.files import Files\n"
        f"@hookimpl\ndef discover_hardware():\n"
        f"    return read_amd(Files(Path({str(box)!r}), 'amd'), {{}}, ask_library=True)\n",
        encoding="utf-8",
    )
    started = time.monotonic()
    detector = Detector("amd", str(plugin))
    hardware = merge([(detector, run(detector, deadline=3))])
    assert time.monotonic() - started < 15
    assert hardware.accelerators[0].memory_bytes == 1000 * MIB
    assert [problem.kind for problem in hardware.problems] == ["timeout"]


def test_amdsmi_is_imported_by_no_other_process(tmp_path, library):
    library("raise SystemExit('it was imported')")
    discover(root=write(tmp_path / "box", linux(), x86()))
    assert "amdsmi" not in sys.modules


CARDS = [Accelerator("amd", index=n, uuid=f"GPU-{n:016x}") for n in range(3)]


@pytest.mark.parametrize(
    ("variables", "ordinals"),
    [
        ({}, [0, 1, 2]),
        ({"HIP_VISIBLE_DEVICES": "2,0"}, [1, None, 0]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, [None, 0, None]),
        ({"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, [0, None, None]),
        ({"ROCR_VISIBLE_DEVICES": "GPU-0000000000000002,0"}, [1, None, 0]),
        ({"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "1,0"}, [None, 0, 1]),
        ({"ROCR_VISIBLE_DEVICES": "1,7,0"}, [None, 0, None]),
        ({"ROCR_VISIBLE_DEVICES": "-1"}, [None, None, None]),
        ({"HIP_VISIBLE_DEVICES": ""}, [None, None, None]),
    ],
)
def test_rocr_filters_first_and_hip_counts_what_is_left(variables, ordinals):
    cards = seen(variables, CARDS)
    assert [card.ordinal for card in cards] == ordinals
    assert [card.visible for card in cards] == [ordinal is not None for ordinal in ordinals]


@pytest.mark.parametrize("value", ["0,0", "GPU-ff", "one", "0x1"])
def test_what_is_not_written_anywhere_is_unknown(value):
    assert [card.visible for card in seen({"ROCR_VISIBLE_DEVICES": value}, CARDS)] == [None] * 3


# ------------------------------------------------------------------------------- Intel, Apple


def test_the_older_driver_of_intel_tells_memory_elsewhere(tmp_path):
    tree = pci(
        "0000:03:00.0", "0x8086", "0x56c0", driver="i915", kind="0x038000",
        drm__card1__lmem_total_bytes=str(14260 * MIB),
    )  # fmt: skip
    card, *_ = read_intel(Files(write(tmp_path, tree), "intel"), {})
    assert isinstance(card, Accelerator)
    assert (card.memory_bytes, card.visible, card.ordinal) == (14260 * MIB, True, 0)


def test_an_intel_card_that_does_not_tell_its_memory(tmp_path):
    tree = pci("0000:03:00.0", "0x8086", "0xe20b", driver="xe", kind="0x030000")
    told = list(read_intel(Files(write(tmp_path, tree), "intel"), {"ZE_AFFINITY_MASK": "0"}))
    (card,) = [fact for fact in told if isinstance(fact, Accelerator)]
    assert (card.memory_bytes, card.visible) == (None, None)
    unknown = {fact.fact for fact in told if isinstance(fact, Problem)}
    assert {"accelerators.memory_bytes", "accelerators.visible", "accelerators.name"} == unknown


@pytest.mark.parametrize("said", ["", "[]", "{}", '{"SPDisplaysDataType": [1]}', "not json"])
def test_a_profiler_that_says_something_else_is_a_problem(said):
    (problem,) = read_apple(lambda: said)
    assert isinstance(problem, Problem)
    assert problem.fact == "accelerators"


def test_cards_that_are_not_apples_are_not_taken_for_one():
    eyed = {"sppci_model": "AMD Radeon Pro", "spdisplays_vendor": "sppci_vendor_amd"}
    assert list(read_apple(lambda: json.dumps({"SPDisplaysDataType": [eyed]}))) == []
