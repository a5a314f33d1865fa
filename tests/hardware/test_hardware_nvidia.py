"""The NVIDIA plugin: the real pynvml over a stub library, in the plugin's own process.

The stub answers what a description says; the descriptions are synthetic, with names, PCI ids and
sizes as real cards report them.
"""

from __future__ import annotations

import time

import pytest
from machines import linux, write

from stackconf.hardware.discovery import discover
from stackconf.hardware.facts import Accelerator, MigInstance, Peer, Visibility
from stackconf.hardware.visibility import seen, visible_cards

MIB = 1024**2


def h100(index: int, *more: str) -> str:
    lines = [
        "device",
        "name NVIDIA H100 80GB HBM3",
        f"uuid GPU-{index}a000000-0000-0000-0000-00000000000{index}",
        f"pci 00000000:{index + 16:02X}:00.0",
        "id 0x233010de",
        f"memory {81559 * MIB} {81000 * MIB}",
        "capability 9 0",
        "cores 16896",
        "mig 0",
        f"node {index // 4}",
        f"affinity {'ff00' if index // 4 else 'ff'}",
        "links 18",
        *more,
    ]
    return "\n".join(lines) + "\n"


def all_linked(count: int) -> str:
    """Every pair over NVLink; cards of one socket behind one root, the others across the system."""
    return "".join(
        f"between {one} {other} {30 if one // 4 == other // 4 else 50} 0 0\n"
        for other in range(count)
        for one in range(other)
    )


EIGHT = "driver 550.54.15\ncuda 12040\n" + all_linked(8) + "".join(h100(index) for index in range(8))
GB10 = """
driver 580.95.05
cuda 13000
device
name NVIDIA GB10
uuid GPU-gb10
pci 0000000F:01:00.0
id 0x2e1210de
capability 12 1
cores 6144
addressing 2
c2c 1
node 0
affinity fffff
"""


def reasons(hardware) -> dict[tuple[str, str], str]:
    return {(problem.fact, problem.kind): problem.reason for problem in hardware.problems}


def test_eight_h100(stub, nvidia_over):
    hardware = nvidia_over(stub, EIGHT)
    assert hardware.problems == ()
    assert len(hardware.accelerators) == 8
    assert hardware.accelerators[3] == Accelerator(
        vendor="nvidia",
        index=3,
        name="NVIDIA H100 80GB HBM3",
        uuid="GPU-3a000000-0000-0000-0000-000000000003",
        pci_bus_id="00000000:13:00.0",
        pci_device_id="10de:2330",
        memory_bytes=81559 * MIB,
        memory_kind="dedicated",
        compute_capability=(9, 0),
        multiprocessors=132,
        mig_enabled=False,
        numa_node=0,
        driver_version="550.54.15",
        runtime_version="12.4",
        visible=True,
        ordinal=3,
        near_cpus=range(8),
        nvlinks=18,
        nvlink_peers=(0, 1, 2, 4, 5, 6, 7),
        peers=[
            Peer(other, "nvlink", "root" if other < 4 else "system", direct=True)
            for other in range(8)
            if other != 3
        ],
    )
    assert hardware.accelerators[3].free_bytes == 81000 * MIB
    assert [card.index for card in hardware.accelerators] == list(range(8))
    assert [card.numa_node for card in hardware.accelerators] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_sysfs_says_which_node_a_card_is_near(stub, nvidia_over, tmp_path):
    root = write(tmp_path / "other", {"/sys/bus/pci/devices/0000:10:00.0/numa_node": "5\n"})
    assert nvidia_over(stub, h100(0), root=root).accelerators[0].numa_node == 5


def test_sysfs_without_a_node_leaves_it_to_the_driver(stub, nvidia_over, tmp_path):
    root = write(tmp_path / "other", {"/sys/bus/pci/devices/0000:10:00.0/numa_node": "-1\n"})
    assert nvidia_over(stub, h100(0), root=root).accelerators[0].numa_node == 0


def test_sysfs_says_which_cpus_are_near(stub, nvidia_over, tmp_path):
    device = "/sys/bus/pci/devices/0000:10:00.0"
    root = write(tmp_path / "other", {f"{device}/local_cpulist": "0-3,8-11\n"})
    assert nvidia_over(stub, h100(0), root=root).accelerators[0].near_cpus == (0, 1, 2, 3, 8, 9, 10, 11)


def test_no_near_cpus_in_sysfs_leave_it_to_the_driver(stub, nvidia_over, tmp_path):
    device = "/sys/bus/pci/devices/0000:10:00.0"
    root = write(tmp_path / "other", {f"{device}/local_cpulist": "\n"})
    hardware = nvidia_over(stub, h100(0, "affinity 5"), root=root)
    assert hardware.accelerators[0].near_cpus == (0, 2)
    assert hardware.problems == ()


def test_a_card_whose_memory_is_a_node_of_its_own(stub, nvidia_over):
    """Grace Hopper: the card's memory counts as main memory, and is the card's all the same."""
    (card,) = nvidia_over(stub, h100(0, "addressing 2", "c2c 1", "own_node 1")).accelerators
    assert (card.numa_node, card.memory_node, card.memory_kind) == (0, 1, "dedicated")
    assert card.memory_bytes == 81559 * MIB


def test_two_bridged_pairs(stub, nvidia_over):
    """A bridge joins two cards; the other pairs go over PCIe, and some may not do that directly."""
    pairs = "between 0 1 20 0 0\nbetween 2 3 20 0 0\nbetween 0 2 30 1 5\n"
    cards = nvidia_over(stub, pairs + "".join(h100(n, "links 12") for n in range(4))).accelerators
    assert [card.nvlink_peers for card in cards] == [(1,), (0,), (3,), (2,)]
    assert [card.nvlinks for card in cards] == [12] * 4
    assert cards[0].peers == (
        Peer(1, "nvlink", "switches", direct=True),
        Peer(2, "pcie", "root", direct=False),
        Peer(3, "pcie", "system", direct=True),
    )


def test_cards_without_nvlink_certainly_have_no_peers_over_it(stub, nvidia_over):
    cards = nvidia_over(stub, "".join(h100(n).replace("links 18", "") for n in range(2))).accelerators
    assert [(card.nvlinks, card.nvlink_peers) for card in cards] == [(0, ()), (0, ())]


def test_one_card_has_no_peers(stub, nvidia_over):
    (card,) = nvidia_over(stub, h100(0)).accelerators
    assert (card.nvlink_peers, card.peers) == ((), ())


@pytest.mark.parametrize("told", ["fail nvmlDeviceGetP2PStatus 999\n", "between 0 1 30 0 6\n"])
def test_a_status_that_is_not_known_leaves_the_peers_unknown(stub, nvidia_over, told):
    hardware = nvidia_over(stub, told + h100(0) + h100(1))
    assert [card.nvlink_peers for card in hardware.accelerators] == [None, None]
    assert {problem.fact for problem in hardware.problems} >= {"accelerators.nvlink_peers"}


def test_a_card_that_is_cut_up_reaches_no_other(stub, nvidia_over):
    text = "between 0 1 30 0 0\n" + h100(0, "mig 1", f"instance MIG-0 {MIB} 9856 16 1 1") + h100(1)
    cards = nvidia_over(stub, text).accelerators
    assert [card.nvlink_peers for card in cards] == [(), ()]
    assert cards[1].peers == (Peer(0, "pcie", "root", direct=False),)


@pytest.mark.exhaustive
def test_a_hang_between_cards_keeps_all_that_is_known_of_each(stub, nvidia_over):
    hardware = nvidia_over(stub, f"sleep nvmlDeviceGetP2PStatus 60\n{EIGHT}", deadline=4)
    assert [card.memory_bytes for card in hardware.accelerators] == [81559 * MIB] * 8
    assert {card.nvlink_peers for card in hardware.accelerators} == {None}
    assert {problem.kind for problem in hardware.problems} == {"timeout"}


def test_seven_mig_instances(stub, nvidia_over):
    instances = [f"instance MIG-{n} {9856 * MIB} 9856 16 1 1" for n in range(6)]
    instances.append(f"instance MIG-6 {39936 * MIB} 39936 32 3 2")
    (card,) = nvidia_over(stub, h100(0, "mig 1", *instances)).accelerators
    assert card.mig_enabled is True
    assert card.mig[:6] == tuple(MigInstance(f"MIG-{n}", "1g.10gb", 9856 * MIB, 16) for n in range(6))
    assert card.mig[6].profile == "2c.3g.40gb"
    assert card.memory_bytes == 81559 * MIB


def test_a_parent_that_may_not_tell_its_memory_still_has_instances(stub, nvidia_over):
    text = h100(0, "mig 1", "fail nvmlDeviceGetMemoryInfo_v2 4", f"instance MIG-0 {MIB} 9856 16 1 1")
    hardware = nvidia_over(stub, text.replace("memory ", "nothing "))
    (card,) = hardware.accelerators
    assert (card.memory_bytes, card.memory_kind) == (None, None)
    assert card.mig == (MigInstance("MIG-0", None, MIB, 16, visible=True),)
    assert ("accelerators.memory_bytes", "unsupported") in reasons(hardware)


def test_gb10_shares_the_hosts_memory_and_is_not_of_zero_bytes(stub, nvidia_over):
    hardware = nvidia_over(stub, GB10)
    (card,) = hardware.accelerators
    assert (card.memory_bytes, card.free_bytes, card.memory_kind) == (None, None, "unified")
    assert (card.compute_capability, card.multiprocessors, card.mig_enabled) == ((12, 1), 48, False)
    (problem,) = hardware.problems
    assert (problem.fact, problem.kind) == ("accelerators.memory_bytes", "unsupported")
    assert problem.reason.startswith("card 0: it shares the host's memory (NVML_ERROR_NOT_SUPPORTED")


def test_unified_memory_may_come_as_the_hosts_own_amount(stub, nvidia_over, tmp_path):
    root = write(tmp_path / "spark", linux(memory_kib=125_000_000))
    text = f"{GB10}memory {125_000_000 * 1024} 1000\n"
    (card,) = nvidia_over(stub, text, root=root).accelerators
    assert (card.memory_bytes, card.memory_kind) == (125_000_000 * 1024, "unified")


def test_a_coherent_card_with_memory_of_its_own_is_dedicated(stub, nvidia_over):
    text = h100(0, "addressing 2", "c2c 1")
    assert nvidia_over(stub, text).accelerators[0].memory_kind == "dedicated"


def test_memory_that_is_not_told_and_no_sign_of_sharing_is_unknown(stub, nvidia_over):
    (card,) = nvidia_over(stub, h100(0).replace("memory ", "nothing ")).accelerators
    assert (card.memory_bytes, card.memory_kind) == (None, None)


def test_zero_bytes_are_not_believed(stub, nvidia_over):
    hardware = nvidia_over(stub, h100(0, "memory 0 0"))
    assert hardware.accelerators[0].memory_bytes is None
    assert "gives 0 bytes" in reasons(hardware)["accelerators.memory_bytes", "unsupported"]


def test_an_old_driver_without_the_younger_functions(old_stub, nvidia_over):
    hardware = nvidia_over(old_stub, EIGHT)
    card = hardware.accelerators[7]
    assert (card.memory_bytes, card.compute_capability) == (81559 * MIB, (9, 0))
    assert (card.multiprocessors, card.mig_enabled, card.numa_node) == (None, None, None)
    told = reasons(hardware)
    assert {fact for fact, _ in told} == {
        "accelerators.multiprocessors", "accelerators.mig_enabled", "accelerators.numa_node"
    }  # fmt: skip
    reason = told["accelerators.multiprocessors", "unsupported"]
    assert reason.startswith("cards 0-7: NVML_ERROR_FUNCTION_NOT_FOUND from nvmlDeviceGetNumGpuCores")
    assert len(hardware.problems) == 3


CODES = [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 25, 27, 29, 999, 12345]


@pytest.mark.parametrize("code", CODES)
def test_each_error_of_init_is_a_problem_with_nvmls_name(stub, nvidia_over, code):
    import pynvml

    hardware = nvidia_over(stub, f"fail nvmlInitWithFlags {code}\n{EIGHT}")
    assert hardware.accelerators == ()
    (problem,) = hardware.problems
    names = [name for name in dir(pynvml) if name.startswith("NVML_ERROR_") and getattr(pynvml, name) == code]
    assert any(name in problem.reason for name in names or ["NVML error 12345"])
    kinds = {4: "denied", 10: "timeout", 3: "unsupported", 13: "unsupported", 25: "unsupported"}
    assert problem.kind == kinds.get(code, "error")
    assert problem.fact == "accelerators"


def test_a_version_mismatch_says_what_to_do(stub, nvidia_over):
    (problem,) = nvidia_over(stub, "fail nvmlInitWithFlags 18\n").problems
    assert "reboot" in problem.reason


def test_no_driver_loaded_and_no_card_is_absent(stub, nvidia_over):
    (problem,) = nvidia_over(stub, "fail nvmlInitWithFlags 9\n").problems
    assert (problem.kind, problem.fact) == ("absent", "accelerators")


def test_no_driver_library_is_absent(tmp_path, nvidia_over):
    import ctypes.util

    if ctypes.util.find_library("nvidia-ml"):
        pytest.skip("this machine has the library")
    (problem,) = nvidia_over(tmp_path, "").problems
    assert (problem.kind, problem.fact) == ("absent", "accelerators")
    assert "NVML_ERROR_LIBRARY_NOT_FOUND" in problem.reason


def test_a_card_without_its_driver_is_not_absent(stub, nvidia_over, tmp_path):
    device = "/sys/bus/pci/devices/0000:3b:00.0"
    card = {f"{device}/vendor": "0x10de\n", f"{device}/class": "0x030200\n"}
    bridge = {"/sys/bus/pci/devices/0000:00:01.0/vendor": "0x10de\n"}
    root = write(tmp_path / "bare", card, bridge)
    (problem,) = nvidia_over(stub, "fail nvmlInitWithFlags 9\n", root=root).problems
    assert problem.kind == "error"
    assert "0000:3b:00.0;" in problem.reason
    assert "modprobe nvidia" in problem.reason


def test_wsl_with_the_wrong_library_says_where_the_right_one_is(stub, nvidia_over, tmp_path):
    device = "/sys/bus/pci/devices/0000:3b:00.0"
    card = {f"{device}/vendor": "0x10de\n", f"{device}/class": "0x030200\n"}
    root = write(tmp_path / "wsl", linux(kernel="5.15.90.1-microsoft-standard-WSL2"), card)
    (problem,) = nvidia_over(stub, "fail nvmlInitWithFlags 9\n", root=root).problems
    assert "/usr/lib/wsl/lib" in problem.reason


def test_a_driver_without_cards(stub, nvidia_over):
    (problem,) = nvidia_over(stub, "").problems
    assert problem.kind == "absent"


def test_a_hang_in_init_ends_at_the_deadline(stub, nvidia_over):
    started = time.monotonic()
    hardware = nvidia_over(stub, "sleep nvmlInitWithFlags 60\n", deadline=3, CUDA_VISIBLE_DEVICES="0")
    assert time.monotonic() - started < 20
    (problem,) = hardware.problems
    assert (problem.fact, problem.kind) == ("accelerators", "timeout")
    assert "within 3 s" in problem.reason
    assert hardware.visibility == (Visibility("CUDA_VISIBLE_DEVICES", "0"),)


@pytest.mark.exhaustive
def test_a_hang_in_a_detail_keeps_every_cards_identity(stub, nvidia_over):
    text = EIGHT + "sleep nvmlDeviceGetCudaComputeCapability 60\n"
    hardware = nvidia_over(stub, text, deadline=4)
    assert len(hardware.accelerators) == 8
    assert all(card.uuid and card.pci_device_id == "10de:2330" for card in hardware.accelerators)
    assert [card.memory_bytes for card in hardware.accelerators[6:]] == [81559 * MIB, None]
    assert {problem.kind for problem in hardware.problems} == {"timeout"}


def test_a_crash_in_a_detail_keeps_every_cards_identity(stub, nvidia_over):
    hardware = nvidia_over(stub, f"crash nvmlDeviceGetMemoryInfo_v2\n{EIGHT}")
    assert len(hardware.accelerators) == 8
    assert all(card.name and card.memory_bytes is None for card in hardware.accelerators)
    assert "SIGSEGV" in reasons(hardware)["accelerators", "error"]


def test_a_crash_in_init(stub, nvidia_over):
    hardware = nvidia_over(stub, "crash nvmlInitWithFlags\n")
    assert "crashed with SIGSEGV" in reasons(hardware)["accelerators", "error"]


def test_a_card_lost_midway_costs_its_details_and_one_problem(stub, nvidia_over):
    text = "".join(h100(index, *(["lost 5"] if index == 1 else [])) for index in range(3))
    hardware = nvidia_over(stub, text)
    first, lost, last = hardware.accelerators
    assert lost.uuid is not None
    assert (lost.memory_bytes, lost.compute_capability, lost.multiprocessors) == (None, None, None)
    assert first.memory_bytes == last.memory_bytes == 81559 * MIB
    (problem,) = hardware.problems
    assert problem.reason.startswith("card 1: NVML_ERROR_GPU_IS_LOST")
    assert problem.fact == "accelerators"


def test_a_card_lost_from_the_start_is_counted_and_unknown(stub, nvidia_over):
    hardware = nvidia_over(stub, h100(0) + h100(1, "lost 0"), CUDA_VISIBLE_DEVICES="0")
    assert [card.uuid is None for card in hardware.accelerators] == [False, True]
    assert [card.visible for card in hardware.accelerators] == [None, None]


def test_a_card_this_user_may_not_open(stub, nvidia_over):
    text = h100(0) + h100(1, "fail nvmlDeviceGetHandleByIndex_v2 4")
    hardware = nvidia_over(stub, text)
    assert reasons(hardware)["accelerators", "denied"].startswith("card 1: NVML_ERROR_NO_PERMISSION")


IDENTITY = [
    ("nvmlDeviceGetName", "name"),
    ("nvmlDeviceGetUUID", "uuid"),
    ("nvmlDeviceGetPciInfo_v3", "pci_bus_id"),
    ("nvmlDeviceGetMigMode", "mig_enabled"),
    ("nvmlDeviceGetCudaComputeCapability", "compute_capability"),
    ("nvmlDeviceGetNumGpuCores", "multiprocessors"),
    ("nvmlDeviceGetMemoryAffinity", "numa_node"),
    ("nvmlDeviceGetCpuAffinity", "near_cpus"),
    ("nvmlDeviceGetNvLinkState", "nvlinks"),
    ("nvmlDeviceGetMemoryInfo", "memory_bytes"),
    ("nvmlSystemGetDriverVersion", "driver_version"),
    ("nvmlSystemGetCudaDriverVersion_v2", "runtime_version"),
]


@pytest.mark.parametrize(("function", "name"), IDENTITY)
def test_any_call_may_fail_and_costs_one_field(stub, nvidia_over, function, name):
    hardware = nvidia_over(stub, f"fail {function} 999\n{EIGHT}")
    assert [getattr(card, name) for card in hardware.accelerators] == [None] * 8
    (problem,) = hardware.problems
    assert (problem.fact, problem.kind) == (f"accelerators.{name}", "error")
    assert "NVML_ERROR_UNKNOWN" in problem.reason


def test_a_name_that_is_no_text(stub, nvidia_over):
    hardware = nvidia_over(stub, h100(0).replace("NVIDIA H100 80GB HBM3", " "))
    assert hardware.accelerators[0].name is None
    assert ("accelerators.name", "unsupported") in reasons(hardware)


def test_every_variable_is_reported_as_it_stands(stub, nvidia_over, monkeypatch):
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "")
    hardware = nvidia_over(stub, EIGHT, NVIDIA_VISIBLE_DEVICES="all", CUDA_VISIBLE_DEVICES="1, 2")
    assert hardware.visibility == (
        Visibility("CUDA_VISIBLE_DEVICES", "1, 2"),
        Visibility("NVIDIA_VISIBLE_DEVICES", "all"),
        Visibility("ROCR_VISIBLE_DEVICES", ""),
    )
    assert [card.index for card in hardware.visible_accelerators] == [1, 2]


@pytest.mark.gpu
def test_a_real_card():
    hardware = discover(deadline=60)
    if not hardware.accelerators:
        pytest.skip("no NVIDIA card here")
    for card in hardware.accelerators:
        assert card.uuid is not None
        assert card.uuid.startswith("GPU-")
        assert card.pci_device_id is not None
        assert card.pci_device_id.startswith("10de:")
        assert card.memory_bytes is None or card.memory_bytes > 2**30
        assert card.compute_capability is not None
        assert card.driver_version


# ------------------------------------------------------------------------------ visibility


def cards(*models: str, mig: bool | None = False) -> list[Accelerator]:
    return [
        Accelerator("nvidia", index=n, uuid=f"GPU-{n}bc", pci_device_id=model, mig_enabled=mig)
        for n, model in enumerate(models)
    ]


SAME = cards("10de:2330", "10de:2330", "10de:2330")
MIXED = cards("10de:2330", "10de:26b9")


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, [True, True, True]),
        ("", [False, False, False]),
        ("  ", [False, False, False]),
        ("-1", [False, False, False]),
        ("NoDevFiles", [False, False, False]),
        ("0", [True, False, False]),
        ("2,0", [True, False, True]),
        (" 0 , 1 ", [True, True, False]),
        ("0,7,1", [True, False, False]),
        ("0,-1,1", [True, False, False]),
        ("0,,1", [True, False, False]),
        ("1,1", [False, False, False]),
        ("7", [False, False, False]),
        ("GPU-1bc", [False, True, False]),
        ("GPU-2,GPU-0", [True, False, True]),
        ("GPU-1,GPU-1bc", [False, False, False]),
        ("GPU-", [False, False, False]),
        ("GPU-0,GPU-x,GPU-1", [True, False, False]),
        ("0,GPU-1", [None, None, None]),
        ("GPU-0,1", [True, None, None]),
        ("0x1", [None, None, None]),
        ("gpu-0", [None, None, None]),
    ],
)
def test_visibility_of_three_alike(value, seen):
    assert visible_cards(value, None, SAME) == seen


@pytest.mark.parametrize(
    ("value", "order", "seen"),
    [
        ("0", None, [None, None]),
        ("0", "FASTEST_FIRST", [None, None]),
        ("0", "PCI_BUS_ID", [True, False]),
        ("1,0", None, [True, True]),
        ("9", None, [False, False]),
        ("GPU-1", None, [False, True]),
    ],
)
def test_numbers_mean_nothing_certain_among_different_models(value, order, seen):
    assert visible_cards(value, order, MIXED) == seen


def test_instances_make_their_card_visible_and_cuda_takes_one():
    parts = (MigInstance("MIG-aa"), MigInstance("MIG-ab"))
    both = [
        Accelerator("nvidia", index=0, uuid="GPU-0bc", mig_enabled=True, mig=parts),
        Accelerator("nvidia", index=1, uuid="GPU-1bc", mig_enabled=True, mig=(MigInstance("MIG-ba"),)),
    ]
    assert visible_cards("MIG-ab", None, both) == [True, False]
    assert visible_cards("MIG-ba,MIG-aa", None, both) == [False, True]
    assert visible_cards("MIG-GPU-1bc/1/0", None, both) == [False, True]
    assert visible_cards("MIG-zz", None, both) == [False, False]
    assert visible_cards("0", None, both) == [None, None]


@pytest.mark.parametrize(
    ("value", "order", "among", "ordinals"),
    [
        (None, None, SAME, [0, 1, 2]),
        ("2,0", None, SAME, [1, None, 0]),
        ("GPU-2,GPU-0", None, SAME, [1, None, 0]),
        ("1,1", None, SAME, [None, None, None]),
        ("2,-1,0", None, SAME, [None, None, 0]),
        ("", None, SAME, [None, None, None]),
        (None, None, MIXED, [None, None]),
        (None, "PCI_BUS_ID", MIXED, [0, 1]),
        ("1,0", None, MIXED, [None, None]),
        ("GPU-1,GPU-0", None, MIXED, [1, 0]),
    ],
)
def test_cuda_counts_in_the_order_of_the_list(value, order, among, ordinals):
    assert [card.ordinal for card in seen(value, order, among)] == ordinals


def test_the_instance_that_is_named_is_the_one_that_is_used():
    parts = (MigInstance("MIG-aa"), MigInstance("MIG-ab"))
    card = Accelerator("nvidia", index=0, uuid="GPU-0bc", mig_enabled=True, mig=parts)

    def used(value):
        return [one.visible for one in seen(value, None, [card])[0].mig]

    assert used("MIG-ab") == [False, True]
    assert used("MIG-ab,MIG-aa") == [False, True]
    assert used("") == used("-1") == used("MIG-zz") == [False, False]
    assert used(None) == used("MIG-GPU-0bc/1/0") == [None, None]


def test_uuids_that_could_not_be_read_leave_it_open():
    unknown = [*cards("10de:2330"), Accelerator("nvidia", index=1)]
    assert visible_cards("GPU-7", None, unknown) == [None, None]
    assert visible_cards("0", "PCI_BUS_ID", unknown) == [None, None]
    assert visible_cards("", None, unknown) == [False, False]
