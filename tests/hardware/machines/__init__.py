"""Other people's machines as folders: a few functions that write /proc, /sys and /etc trees.

Each description follows what such a machine shows; the values are made up unless a comment says
where they were seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

Tree = dict[str, str]

ICELAKE = (
    "fpu lm ht sse4_1 sse4_2 ssse3 fma f16c avx avx2 bmi2 avx512f avx512dq avx512bw avx512vl avx512_vnni"
)
SAPPHIRE_RAPIDS = f"{ICELAKE} avx_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8"
GRAVITON3 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc "
    "dcpop sha3 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg dcpodp svei8mm svebf16 "
    "i8mm bf16 dgh rng"
)
UNLIMITED_V1 = "9223372036854771712"


def write(root: Path, *trees: Mapping[str, str], links: Mapping[str, str] | None = None) -> Path:
    """Write the files below `root`; later trees win. Links may point nowhere, as in /proc/self/ns."""
    merged: Tree = {}
    for tree in trees:
        merged.update(tree)
    for path, text in merged.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    for path, target in (links or {}).items():
        link = root / path.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    return root


def linux(*, kernel: str = "6.1.0-18-amd64", memory_kib: int = 67_108_864, allowed: str = "0-1023") -> Tree:
    """A host with systemd as PID 1, outside any container."""
    return {
        "/proc/sys/kernel/ostype": "Linux\n",
        "/proc/sys/kernel/osrelease": f"{kernel}\n",
        "/proc/meminfo": (
            f"MemTotal:       {memory_kib} kB\nMemFree:          123 kB\n"
            f"MemAvailable:   {memory_kib // 2} kB\nSwapTotal:      1048576 kB\n"
        ),
        "/proc/self/status": f"Name:\tpython\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\n",
        "/proc/self/cgroup": "0::/\n",
        "/proc/self/mountinfo": mount("/sys/fs/cgroup"),
        "/sys/fs/cgroup/cgroup.procs": "",
        "/etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        "/run/systemd/system/.keep": "",
    }


def x86(
    *, sockets: int = 1, cores: int = 4, threads: int = 2, flags: str = ICELAKE, node_kib: int = 33_554_432
) -> Tree:
    """CPUs numbered as Linux does on x86: the second threads of all cores come after the first ones."""
    total = sockets * cores
    tree: Tree = {f"{CPU}/online": f"0-{total * threads - 1}\n"}
    blocks = []
    for cpu in range(total * threads):
        core, package = cpu % total, (cpu % total) // cores
        siblings = ",".join(str(core + total * thread) for thread in range(threads))
        tree |= topology(cpu, package=package, core=core % cores, siblings=siblings)
        blocks.append(
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Test\n"
            f"physical id\t: {package}\ncore id\t\t: {core % cores}\nflags\t\t: {flags}\n"
        )
    tree["/proc/cpuinfo"] = "\n".join(blocks)
    for package in range(sockets):
        first = ",".join(
            f"{package * cores + total * thread}-{(package + 1) * cores - 1 + total * thread}"
            for thread in range(threads)
        )
        tree[f"{NODE}/node{package}/cpulist"] = f"{first}\n"
        tree[f"{NODE}/node{package}/meminfo"] = f"Node {package} MemTotal:       {node_kib} kB\n"
    return tree


def arm(*, cpus: int = 4, part: str = "0xd40", features: str = GRAVITON3) -> Tree:
    """An ARM server: no model name, one thread a core (layout of /proc/cpuinfo as on a c7g)."""
    tree: Tree = {f"{CPU}/online": f"0-{cpus - 1}\n"}
    blocks = []
    for cpu in range(cpus):
        tree |= topology(cpu, package=0, core=cpu, siblings=str(cpu))
        blocks.append(
            f"processor\t: {cpu}\nBogoMIPS\t: 2100.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x1\nCPU part\t: {part}\nCPU revision\t: 1\n"
        )
    tree["/proc/cpuinfo"] = "\n".join(blocks)
    return tree


CPU = "/sys/devices/system/cpu"
NODE = "/sys/devices/system/node"


def topology(cpu: int, *, package: int, core: int, siblings: str) -> Tree:
    """One CPU's folder in sysfs."""
    folder = f"{CPU}/cpu{cpu}/topology"
    return {
        f"{folder}/physical_package_id": f"{package}\n",
        f"{folder}/core_id": f"{core}\n",
        f"{folder}/core_cpus_list": f"{siblings}\n",
        f"{folder}/thread_siblings_list": f"{siblings}\n",
    }


def mount(point: str, *, root: str = "/", options: str = "rw", unified: bool = True) -> str:
    """One line of mountinfo for a cgroup hierarchy."""
    kind = "cgroup2" if unified else "cgroup"
    return f"31 23 0:28 {root} {point} rw,nosuid,relatime shared:9 - {kind} {kind} {options}\n"


def v2(own: str, groups: Mapping[str, Mapping[str, str]], *, root: str = "/") -> Tree:
    """Cgroup v2: `own` is the process's group, `groups` the files of each group below the mount."""
    point = "/sys/fs/cgroup"
    tree: Tree = {"/proc/self/cgroup": f"0::{own}\n", "/proc/self/mountinfo": mount(point, root=root)}
    return tree | _groups(point, groups)


def v1(
    own: Mapping[str, str],
    groups: Mapping[str, Mapping[str, Mapping[str, str]]],
    *,
    root: str = "/",
    unified: str | None = None,
) -> Tree:
    """Cgroup v1: `own` gives the group for each controller (`"cpu,cpuacct"`), `groups` its files.

    `unified` is the `0::` group of a hybrid system, whose v2 mount carries no controllers.
    """
    lines, mounts, tree = [], [], Tree()
    for number, (controllers, path) in enumerate(own.items(), start=2):
        point = f"/sys/fs/cgroup/{controllers}"
        lines.append(f"{number}:{controllers}:{path}\n")
        mounts.append(mount(point, root=root, options=f"rw,{controllers}", unified=False))
        tree |= _groups(point, groups.get(controllers, {}))
    if unified is not None:
        lines.append(f"0::{unified}\n")
        mounts.append(mount("/sys/fs/cgroup/unified", options="rw,nsdelegate"))
        tree["/sys/fs/cgroup/unified/cgroup.procs"] = ""
    tree["/proc/self/cgroup"] = "1:name=systemd:/\n" + "".join(lines)
    tree["/proc/self/mountinfo"] = "".join(mounts)
    return tree


def namespaces(*, initial: Iterable[str]) -> dict[str, str]:
    """Links of /proc/self/ns: the named ones are the kernel's first, the others some later ones."""
    first = {"pid": 4026531836, "ipc": 4026531839, "uts": 4026531838}
    links = {}
    for name, number in first.items():
        links[f"/proc/self/ns/{name}"] = f"{name}:[{number if name in initial else 4026532501}]"
    return links


def _groups(point: str, groups: Mapping[str, Mapping[str, str]]) -> Tree:
    tree: Tree = {f"{point}/cgroup.procs": ""}
    for group, files in groups.items():
        folder = f"{point}{group.rstrip('/')}"
        tree[f"{folder}/cgroup.procs"] = ""
        for name, text in files.items():
            tree[f"{folder}/{name}"] = f"{text}\n"
    return tree


PCI = "/sys/bus/pci/devices"


def pci(
    address: str,
    vendor: str,
    device: str,
    *,
    driver: str = "",
    node: int = -1,
    cpus: str = "",
    kind: str = "0x038000",
    **files: str,
) -> Tree:
    """One card on the bus, with what its driver adds to its folder (`__` in a name is a slash)."""
    folder = f"{PCI}/{address}"
    uevent = f"DRIVER={driver}\n" if driver else ""
    tree: Tree = {
        f"{folder}/class": f"{kind}\n",
        f"{folder}/vendor": f"{vendor}\n",
        f"{folder}/device": f"{device}\n",
        f"{folder}/numa_node": f"{node}\n",
        f"{folder}/local_cpulist": f"{cpus}\n",
        f"{folder}/uevent": f"{uevent}PCI_SLOT_NAME={address}\n",
    }
    return tree | {f"{folder}/{name.replace('__', '/')}": f"{text}\n" for name, text in files.items()}


def kfd(number: int, links: Mapping[int, int] | None = None, **properties: int) -> Tree:
    """One node of /sys/class/kfd; `links` gives the type of the link to each other node."""
    folder = f"/sys/class/kfd/kfd/topology/nodes/{number}"
    tree: Tree = {f"{folder}/properties": "".join(f"{key} {value}\n" for key, value in properties.items())}
    for place, (other, kind) in enumerate((links or {}).items()):
        tree[f"{folder}/io_links/{place}/properties"] = f"type {kind}\nnode_from {number}\nnode_to {other}\n"
    return tree
