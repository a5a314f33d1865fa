"""The machines that everything is tried on: files for the host, a description for the driver stub.

Names, PCI ids, amounts of memory and multiprocessors are as such cards report them; uuids, addresses
and amounts that are free are made up, and so is what a driver would say between cards. None of them
is a recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import field, frozen

from . import SAPPHIRE_RAPIDS, Tree, arm, kfd, linux, namespaces, pci, v1, v2, x86

MIB = 1024**2
GIB_KIB = 1024**2

ABSENT = "fail nvmlInitWithFlags 12\n"
"""What pynvml says where the library is not installed."""


@frozen
class Box:
    tree: Tree
    cards: str = ABSENT
    driver: Literal["new", "old"] = "new"
    environment: Mapping[str, str] = field(factory=dict)
    deadline: float = 30
    links: Mapping[str, str] = field(factory=lambda: namespaces(initial=("pid", "ipc", "uts")))


def card(  # noqa: PLR0913 - a description
    name: str,
    device: str,
    mebibytes: int,
    *,
    index: int = 0,
    capability: str,
    cores: int,
    bus: int = 0x10,
    domain: int = 0,
    more: Sequence[str] = (),
) -> str:
    lines = [
        "device",
        f"name {name}",
        f"uuid GPU-{index:08x}-0000-0000-0000-000000000000",
        f"pci {domain:08X}:{bus + index:02X}:00.0",
        f"id 0x{device}10de",
        f"memory {mebibytes * MIB} {(mebibytes - 500) * MIB}",
        f"capability {capability}",
        f"cores {cores}",
        *more,
    ]
    return "\n".join(lines) + "\n"


def between(pairs: Mapping[tuple[int, int], str]) -> str:
    return "".join(f"between {one} {other} {told}\n" for (one, other), told in pairs.items())


def _h100_node() -> Box:
    def half(index: int) -> str:
        return "0-47" if index < 4 else "48-95"

    tree = linux(memory_kib=2048 * GIB_KIB) | x86(
        sockets=2, cores=48, flags=SAPPHIRE_RAPIDS, node_kib=1024 * GIB_KIB
    )
    for index in range(8):
        tree |= pci(
            f"0000:{0x10 + index:02x}:00.0", "0x10de", "0x2330", driver="nvidia", node=index // 4,
            cpus=half(index), kind="0x030200",
        )  # fmt: skip
    linked = between({(a, b): f"{30 if a // 4 == b // 4 else 50} 0 0" for b in range(8) for a in range(b)})
    cards = "".join(
        card("NVIDIA H100 80GB HBM3", "2330", 81559, index=n, capability="9 0", cores=16896,
             more=("mig 0", "links 18"))
        for n in range(8)
    )  # fmt: skip
    return Box(tree, f"driver 550.54.15\ncuda 12040\n{linked}{cards}")


def _a100_40() -> Box:
    tree = linux(memory_kib=512 * GIB_KIB) | x86(sockets=2, cores=32)
    pairs = between({(a, b): "50 0 0" for b in range(4) for a in range(b)})
    cards = "".join(
        card("NVIDIA A100-SXM4-40GB", "20b0", 40960, index=n, capability="8 0", cores=6912,
             more=("mig 0", "links 12", f"node {n // 2}", f"affinity {'ff' if n < 2 else 'ff00'}"))
        for n in range(4)
    )  # fmt: skip
    return Box(
        tree, f"driver 535.161.08\ncuda 12020\n{pairs}{cards}", environment={"CUDA_VISIBLE_DEVICES": "2,0"}
    )


def _l40s() -> Box:
    """Two cards on different sockets, which may not read each other's memory directly."""
    tree = linux(memory_kib=256 * GIB_KIB) | x86(sockets=2, cores=16)
    cards = "".join(
        card("NVIDIA L40S", "26b9", 46068, index=n, capability="8 9", cores=18176,
             more=(f"node {n}", f"affinity {'ff00' if n else 'ff'}"))
        for n in range(2)
    )  # fmt: skip
    return Box(tree, f"driver 570.86.10\ncuda 12080\nbetween 0 1 50 1 5\n{cards}")


def _l4() -> Box:
    one = card("NVIDIA L4", "27b8", 23034, capability="8 9", cores=7424, more=("node 0", "affinity ff"))
    return Box(linux() | x86(), f"driver 550.90.07\ncuda 12040\n{one}")


def _mig() -> Box:
    slices = tuple(f"instance MIG-{n:08x} {9984 * MIB} 9984 16 1 1" for n in range(7))
    one = card(
        "NVIDIA H100 80GB HBM3", "2330", 81559, capability="9 0", cores=16896,
        more=("mig 1", "links 18", "node 0", "affinity ff", *slices),
    )  # fmt: skip
    seen = {"CUDA_VISIBLE_DEVICES": "MIG-00000003"}
    return Box(linux() | x86(), f"driver 550.54.15\ncuda 12040\n{one}", environment=seen)


def _gb10() -> Box:
    one = card(
        "NVIDIA GB10", "2e12", 1, capability="12 1", cores=6144, bus=1, domain=0xF,
        more=("addressing 2", "c2c 1", "node 0", "affinity fffff"),
    )  # fmt: skip
    unsaid = one.replace("memory ", "unsaid ")
    return Box(linux(memory_kib=127_600_000) | arm(cpus=20), f"driver 580.95.05\ncuda 13000\n{unsaid}")


def _gh200() -> Box:
    """The card's memory is a NUMA node without CPUs, which the kernel counts as main memory."""
    node = "/sys/devices/system/node/node"
    own = {
        f"{node}0/cpulist": "0-71\n",
        f"{node}0/meminfo": f"Node 0 MemTotal:       {480 * GIB_KIB} kB\n",
        f"{node}1/cpulist": "\n",
        f"{node}1/meminfo": "Node 1 MemTotal:       100663296 kB\n",
    }
    one = card(
        "NVIDIA GH200 480GB", "2342", 97871, capability="9 0", cores=16896, domain=9, bus=1,
        more=("mig 0", "addressing 2", "c2c 1", "node 0", "own_node 1", "affinity ff"),
    )  # fmt: skip
    tree = linux(memory_kib=480 * GIB_KIB + 100_663_296) | arm(cpus=72, part="0xd4f")
    return Box(tree | own, f"driver 550.54.15\ncuda 12040\n{one}")


def _t4() -> Box:
    one = card("Tesla T4", "1eb8", 15360, capability="7 5", cores=2560, more=("affinity ff",))
    return Box(linux() | x86(), f"driver 418.226.00\ncuda 10010\n{one}", driver="old")


def _wsl() -> Box:
    """Under WSL the driver answers, the bus shows no card, and much is not supported."""
    one = card("NVIDIA GeForce RTX 4090", "2684", 24564, capability="8 9", cores=16384, bus=1)
    refused = "".join(
        f"fail {call} 3\n"
        for call in ("nvmlDeviceGetNumGpuCores", "nvmlDeviceGetMigMode", "nvmlDeviceGetP2PStatus")
    )
    tree = linux(kernel="5.15.167.4-microsoft-standard-WSL2", memory_kib=32 * GIB_KIB) | x86(cores=12)
    return Box(tree, f"driver 566.14\ncuda 12070\n{refused}{one}", links=namespaces(initial=()))


def _mi300x() -> Box:
    """Eight cards, every pair over xGMI; nodes 0 and 1 are the processors."""
    tree = linux(memory_kib=2048 * GIB_KIB) | x86(sockets=2, cores=48)
    tree |= {"/opt/rocm/.info/version": "6.2.0-66\n", "/sys/module/amdgpu/version": "6.8.5\n"}
    for socket in range(2):
        tree |= kfd(socket, cpu_cores_count=48, simd_count=0)
    for index in range(8):
        bus = 0x05 + 0x20 * index
        tree |= pci(
            f"0000:{bus:02x}:00.0", "0x1002", "0x74a1", driver="amdgpu", node=index // 4,
            cpus="0-47" if index < 4 else "48-95", kind="0x120000",
            mem_info_vram_total=str(196592 * MIB), mem_info_vram_used=str(284 * MIB),
            mem_info_vram_vendor="hynix", product_name="AMD Instinct MI300X OAM",
        )  # fmt: skip
        others = {number + 2: 11 for number in range(8) if number != index}
        tree |= kfd(
            index + 2, {index // 4: 2, **others}, cpu_cores_count=0, simd_count=1216, simd_per_cu=4,
            gfx_target_version=90402, vendor_id=4098, device_id=0x74A1, location_id=bus << 8, domain=0,
            unique_id=0x1A2B3C4D5E6F0000 + index,
        )  # fmt: skip
    return Box(tree, environment={"ROCR_VISIBLE_DEVICES": "3,1", "HIP_VISIBLE_DEVICES": "0"})


def _amd_apu() -> Box:
    """A processor with graphics that share its memory; 512 MiB are set aside for them."""
    tree = linux(memory_kib=64 * GIB_KIB) | x86(cores=8)
    tree |= pci(
        "0000:c5:00.0", "0x1002", "0x1638", driver="amdgpu", node=-1, cpus="0-15", kind="0x030000",
        mem_info_vram_total=str(512 * MIB), mem_info_vram_used=str(100 * MIB),
    )  # fmt: skip
    tree |= kfd(
        0, cpu_cores_count=16, simd_count=32, simd_per_cu=4, gfx_target_version=90012, device_id=0x1638,
        location_id=0xC5 << 8, domain=0, unique_id=0,
    )  # fmt: skip
    return Box(tree)


def _arc() -> Box:
    """A card of Intel's beside the graphics of the processor, which count for nothing."""
    tree = linux() | x86()
    tree |= pci("0000:00:02.0", "0x8086", "0xa780", driver="i915", kind="0x030000", cpus="0-7")
    tree |= pci(
        "0000:03:00.0", "0x8086", "0x56a0", driver="xe", node=0, cpus="0-7", kind="0x030000",
        tile0__physical_vram_size_bytes="0x00000003fa000000",
    )  # fmt: skip
    return Box(tree)


def _quota(version: Literal["v1", "v2", "hybrid"]) -> Box:
    """Four CPUs of 16, set on the group above the process's own."""
    v1_files = {"cpu.cfs_quota_us": "400000", "cpu.cfs_period_us": "100000"}
    if version == "v2":
        limits = v2("/pod/app", {"/pod": {"cpu.max": "400000 100000"}, "/pod/app": {"cpu.max": "max 100000"}})
    else:
        limits = v1(
            {"cpu,cpuacct": "/pod/app", "memory": "/pod/app"},
            {
                "cpu,cpuacct": {"/pod": v1_files, "/pod/app": v1_files | {"cpu.cfs_quota_us": "-1"}},
                "memory": {"/pod/app": {"memory.limit_in_bytes": "9223372036854771712"}},
            },
            unified="/pod/app" if version == "hybrid" else None,
        )  # fmt: skip
    return Box(linux() | x86(cores=8) | limits)


def _unserved() -> Box:
    tree = linux() | x86()
    tree |= pci("0000:3b:00.0", "0x10de", "0x2330", kind="0x030200")
    tree |= pci("0000:5e:00.0", "0x1002", "0x74a1", kind="0x120000")
    return Box(tree | pci("0000:03:00.0", "0x8086", "0x56a0", driver="vfio-pci", kind="0x030000"))


BOXES: Mapping[str, Box] = {
    "8x-h100": _h100_node(),
    "4x-a100-40gb": _a100_40(),
    "2x-l40s": _l40s(),
    "1x-l4": _l4(),
    "mig-7x1g.10gb": _mig(),
    "gb10": _gb10(),
    "gh200": _gh200(),
    "t4-old-driver": _t4(),
    "wsl": _wsl(),
    "8x-mi300x": _mi300x(),
    "amd-apu": _amd_apu(),
    "intel-arc": _arc(),
    "quota-v1": _quota("v1"),
    "quota-v2": _quota("v2"),
    "quota-hybrid": _quota("hybrid"),
    "no-gpu": Box(linux() | x86()),
    "driver-mismatch": Box(linux() | x86(), "fail nvmlInitWithFlags 18\n"),
    "hung-driver": Box(linux() | x86(), "sleep nvmlInitWithFlags 60\n", deadline=3),
    "cards-without-a-driver": _unserved(),
}
