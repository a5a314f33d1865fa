"""What is known about a machine: facts, never policy.

`None` means unknown, and `Hardware.problems` says why. Unknown is not zero: a reader must treat
`None` as "cannot say", never as "none there". A limit that certainly does not exist is an absent
entry in `limits`.

Units: memory in bytes, CPU in cores (a fraction where a quota gives one), clock in MHz.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal, TypeAlias

from attrs import field, frozen

ProblemKind: TypeAlias = Literal["absent", "unsupported", "denied", "error", "timeout"]
"""`absent`: nothing of the kind is there to ask. `unsupported`: there, but it cannot say.
`denied`: no permission. `error`: it failed. `timeout`: it did not answer before the deadline."""

CATALOGUE = "catalogue"
"""Says in a problem why there are no published figures for a card. It is no detector."""


def _numbers(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(values)


def _limits(values: Iterable[Limit]) -> tuple[Limit, ...]:
    return tuple(values)


def _instances(values: Iterable[MigInstance]) -> tuple[MigInstance, ...]:
    return tuple(values)


def _cards(values: Iterable[Accelerator]) -> tuple[Accelerator, ...]:
    return tuple(values)


def _throughputs(values: Iterable[Throughput]) -> tuple[Throughput, ...]:
    return tuple(values)


def _peers(values: Iterable[Peer] | None) -> tuple[Peer, ...] | None:
    return None if values is None else tuple(values)


def _known_numbers(values: Iterable[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)


def _words(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


def _variables(values: Iterable[Visibility]) -> tuple[Visibility, ...]:
    return tuple(values)


def _problems(values: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(values)


@frozen
class Problem:
    """A fact that could not be discovered, and why.

    >>> str(Problem("nvidia", "accelerators", "absent", "libnvidia-ml.so.1 is not installed"))
    'nvidia: accelerators: absent: libnvidia-ml.so.1 is not installed'
    """

    detector: str
    fact: str
    kind: ProblemKind
    reason: str

    def __str__(self) -> str:
        return f"{self.detector}: {self.fact}: {self.kind}: {self.reason}"


@frozen
class Limit:
    """One bound on what this process may use: how much, and what sets it.

    >>> Limit(3.5, "cgroup v2 /sys/fs/cgroup/app/cpu.max").amount
    3.5
    """

    amount: float
    source: str


@frozen
class Host:
    """The operating system, and what stands between it and the hardware."""

    os: str | None = None
    """`Linux`, `Darwin`, `Windows`."""
    os_release: str | None = None
    """The distribution's own name, such as `Debian GNU/Linux 12 (bookworm)`."""
    kernel: str | None = None
    architecture: str | None = None
    """`x86_64`, `aarch64`, …"""
    container: str | None = None
    """`docker`, `podman`, `kubernetes`, `lxc`, …; `""` when certainly none."""
    wsl: int | None = None
    """1 or 2 under Windows Subsystem for Linux, 0 when certainly not."""
    cgroup: Literal["v1", "v2", "hybrid", "none"] | None = None
    cgroup_path: str | None = None
    """The process's own group, as `/proc/self/cgroup` gives it."""


@frozen
class NumaNode:
    """One NUMA node: its CPUs (kernel numbers) and its memory in bytes."""

    number: int
    cpus: tuple[int, ...] = field(default=(), converter=_numbers)
    memory_bytes: int | None = None


@frozen
class Cpu:
    """The processors: what the host has, beside what this process may use."""

    model: str | None = None
    vendor: str | None = None
    architecture: str | None = None
    sockets: int | None = None
    physical_cores: int | None = None
    logical_cores: int | None = None
    affinity: tuple[int, ...] | None = None
    """The kernel numbers of the CPUs this process may run on (affinity and cpuset)."""
    usable_physical_cores: int | None = None
    """Distinct physical cores within `affinity`, then capped by the quota rounded down (at least
    one): the number of compute threads that do not wait for each other."""
    usable_cores: float | None = None
    """The least of logical cores, affinity and every quota; a fraction where a quota gives one."""
    limits: tuple[Limit, ...] = field(default=(), converter=_limits)
    """Every limit below the host's cores that was found, tightest first."""
    bound_by: str | None = None
    """What decides `usable_cores`: `"cores"`, `"affinity"`, or the source of the limit."""
    isa: frozenset[str] | None = None
    """Instruction sets that matter for inference, lower case: `avx2`, `avx512f`, `avx512_vnni`,
    `avx512_bf16`, `amx_tile`, `amx_int8`, `amx_bf16`, `f16c`, `fma`, `neon`, `sve`, `i8mm`, …"""
    numa: tuple[NumaNode, ...] | None = None


@frozen
class Memory:
    """Main memory in bytes: the host's, and what this process may use."""

    total_bytes: int | None = None
    available_bytes: int | None = field(default=None, eq=False)
    """Free for use at the moment of discovery; not part of the fingerprint."""
    usable_bytes: int | None = None
    """The least of the total and every limit."""
    limits: tuple[Limit, ...] = field(default=(), converter=_limits)
    bound_by: str | None = None
    """What decides `usable_bytes`: `"total"`, or the source of the limit."""
    swap_bytes: int | None = None


@frozen
class MigInstance:
    """One MIG slice of a card, with memory of its own."""

    uuid: str | None = None
    profile: str | None = None
    """Such as `1g.10gb`."""
    memory_bytes: int | None = None
    multiprocessors: int | None = None
    share: float = 1.0
    """As of an `Accelerator`."""
    visible: bool | None = None
    """Whether CUDA uses it in this process; `None` when that is not certain. CUDA uses one."""

    @property
    def whole_memory_bytes(self) -> int | None:
        """As of an `Accelerator`."""
        return _whole(self.memory_bytes, self.share)


@frozen
class Peer:
    """What lies between a card and another one of the same driver."""

    index: int
    """The other card's number."""
    link: Literal["nvlink", "xgmi", "pcie"] | None = None
    """What carries data between the two."""
    path: Literal["board", "switch", "switches", "root", "node", "system"] | None = None
    """What they share on the PCI bus, nearest first: one board, one switch, several switches, one
    root complex, one NUMA node, nothing but the system (what `nvidia-smi topo -m` calls X, PIX, PXB,
    PHB, NODE, SYS)."""
    direct: bool | None = None
    """Whether one can read the other's memory without going through the host's."""


@frozen
class Figure:
    """A figure that is published for a model of card, with who publishes it."""

    value: float | None
    """`None`: nobody can say, and `note` has the reason."""
    source: str
    gathered: str
    """The day it was taken from its source, `2026-11-22`."""
    verified: bool = True
    """False: the source is weak, or it is somebody's memory."""
    note: str = ""


@frozen
class Throughput:
    """How fast a model of card multiplies dense matrices of one type: never a figure for sparse ones."""

    dtype: str
    """`bf16`, `fp16`, `fp8`, `fp4`, `int8`."""
    flops: Figure
    """Operations per second; a multiplication and its addition are two."""
    accumulate: Literal["fp32", "fp16", "int32", "unstated"] = "unstated"
    """The type of the sums. On many cards of the consumer kind it makes a factor of two."""
    measured: bool = False
    """Somebody measured it; otherwise it is what the hardware reaches at best."""


@frozen
class Nominal:
    """What the catalogue says about a card's *model*. Nothing of it was read from the card.

    The amounts are those of a whole card: of a MIG instance they are no figures.
    """

    slug: str
    """The catalogue's own name, such as `h100-80gb-sxm`."""
    matched_by: Literal["pci", "name", "slug"]
    """How the card was found: its PCI id, its exact name, or a person named the slug."""
    memory_bytes: Figure
    """In all, as the driver reports it."""
    bandwidth: Figure
    """Of its own memory, bytes per second."""
    link: Figure
    """To other cards, bytes per second and *one way*."""
    link_kind: Literal["nvlink", "nvlink-bridge", "c2c", "infinity-fabric", "pcie"] | None = None
    compute: tuple[Throughput, ...] = field(default=(), converter=_throughputs)
    lacks: tuple[str, ...] = field(default=(), converter=_words)
    """Types that its matrix units do not have."""

    def throughput(self, dtype: str) -> Throughput | None:
        """The figure for one type, `None` where the catalogue has no line for it."""
        return next((each for each in self.compute if each.dtype == dtype), None)


@frozen
class Provenance:
    """Where a saved or simulated `Hardware` is from.

    >>> print(Provenance("recorded", host="gpu-7", at="2026-11-22T17:00:00Z", stackconf="0.1.0"))
    recorded on gpu-7, 2026-11-22T17:00:00Z, stackconf 0.1.0
    >>> print(Provenance("synthetic", expression="l40s:2,cpu=32"))
    synthetic, from l40s:2,cpu=32
    """

    kind: Literal["recorded", "synthetic", "unknown"]
    """`unknown`: a file that does not say."""
    host: str | None = None
    at: str | None = None
    """When it was recorded: UTC, ISO 8601."""
    stackconf: str | None = None
    """The version that recorded or made it."""
    expression: str | None = None
    """What a synthetic one was made from, in the form that makes the same again."""

    def __str__(self) -> str:
        if self.kind == "synthetic":
            return f"synthetic, from {self.expression}" if self.expression else "synthetic"
        if self.kind == "unknown":
            return "a file that does not say where it is from"
        version = f"stackconf {self.stackconf}" if self.stackconf else None
        return "recorded " + ", ".join(
            filter(None, [f"on {self.host}" if self.host else "on an unnamed host", self.at, version])
        )


@frozen
class Accelerator:
    """One card. Identified by uuid and PCI id; the name is for people and the catalogue."""

    vendor: str
    """`nvidia`, `amd`, `intel`, `apple`, or a plugin's own word."""
    index: int | None = None
    """The driver's number, before any visibility variable."""
    name: str | None = None
    uuid: str | None = None
    pci_bus_id: str | None = None
    """Where it sits: `00000000:3B:00.0`."""
    pci_device_id: str | None = None
    """What it is: `10de:2330`."""
    memory_bytes: int | None = None
    free_bytes: int | None = field(default=None, eq=False)
    memory_kind: Literal["dedicated", "unified"] | None = None
    """`unified`: it shares the host's memory, so `memory_bytes` may be unknown."""
    compute_capability: tuple[int, int] | None = None
    multiprocessors: int | None = None
    mig_enabled: bool | None = None
    mig: tuple[MigInstance, ...] = field(default=(), converter=_instances)
    architecture: str | None = None
    """What compilers call it where there is no compute capability: `gfx942`."""
    numa_node: int | None = None
    """The NUMA node it is nearest to."""
    near_cpus: tuple[int, ...] | None = field(default=None, converter=_known_numbers)
    """The kernel numbers of the CPUs it is nearest to."""
    memory_node: int | None = None
    """The NUMA node that its own memory *is*, on machines where it is one (Grace Hopper): the
    kernel counts it as main memory too."""
    driver_version: str | None = None
    runtime_version: str | None = None
    """The newest CUDA (or other runtime) version the driver serves, such as `12.4`."""
    visible: bool | None = None
    """Whether the visibility variables let this process see it; `None` when they cannot be read
    with certainty."""
    ordinal: int | None = None
    """The number that programs of this process have for it, after the visibility variables:
    `cuda:0`. `None` for a hidden card, and where it is not certain."""
    nvlinks: int | None = None
    """How many NVLink links of it are up, whatever is at their other end."""
    nvlink_peers: tuple[int, ...] | None = field(default=None, converter=_known_numbers)
    """The numbers of the cards that it reaches over NVLink; empty when certainly none."""
    peers: tuple[Peer, ...] | None = field(default=None, converter=_peers)
    """What lies between it and each other card; empty when there is no other."""
    nominal: Nominal | None = field(default=None, eq=False)
    """What is published for its model; not read from it, and not part of the fingerprint."""
    share: float = 1.0
    """Which part of the card's memory this is, where a provider is given only a part of it:
    `memory_bytes` is that part, and whoever needs a fraction of the *whole* card multiplies by this."""

    @property
    def whole_memory_bytes(self) -> int | None:
        """The memory of the whole card, of which a provider may be given a part.

        >>> Accelerator("nvidia", memory_bytes=22945254604, share=0.475).whole_memory_bytes // 1024**2
        46068
        """
        return _whole(self.memory_bytes, self.share)


def _whole(part: int | None, share: float) -> int | None:
    """What a part that was rounded down to bytes is of; memory comes in whole KiB."""
    return part if part is None or share >= 1 else round((part + 0.5) / share / 1024) * 1024


@frozen
class Visibility:
    """A variable such as `CUDA_VISIBLE_DEVICES`, as it stands in the environment.

    An unset variable has no entry; an empty one has `value == ""`, which hides every card.
    """

    variable: str
    value: str


Fact: TypeAlias = Host | Cpu | Memory | Accelerator | Visibility | Problem


@frozen
class Hardware:
    """Everything that is known about one machine.

    `accelerators` is what could be seen: empty together with a `Problem` of kind `absent` means
    none are there, empty with any other kind means nobody knows.
    """

    host: Host = field(factory=Host)
    cpu: Cpu = field(factory=Cpu)
    memory: Memory = field(factory=Memory)
    accelerators: tuple[Accelerator, ...] = field(default=(), converter=_cards)
    visibility: tuple[Visibility, ...] = field(default=(), converter=_variables)
    problems: tuple[Problem, ...] = field(default=(), converter=_problems)
    provenance: Provenance | None = field(default=None, eq=False)
    """Where it is from, if it is not this machine as it is now; not part of the fingerprint."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Hardware:
        """Read what `save` or `stackconf hardware --json` wrote.

        Raises `InvalidConfig` in one line when it cannot be read.
        """
        from stackconf.hardware.snapshot import load

        return load(path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a snapshot, whole or not at all. It says that it was recorded here and now, unless
        this `Hardware` is from somewhere else already.

        Raises `InvalidConfig` when the file cannot be written.
        """
        from stackconf.hardware.snapshot import save

        save(self, path)

    @property
    def certainly_no_accelerator(self) -> bool:
        """Whether there is none for sure: every detector that says something says that none is there.

        A detector that failed as a whole (a `Problem` about `everything`) might have seen one.

        >>> absent = Problem("nvidia", "accelerators", "absent", "no NVIDIA driver library")
        >>> hung = Problem("acme", "everything", "timeout", "did not answer within 10 s")
        >>> [Hardware(problems=told).certainly_no_accelerator for told in ((absent,), (absent, hung), ())]
        [True, False, False]
        """
        told = [each.kind for each in self.problems if each.fact in {"accelerators", "everything"}]
        return not self.accelerators and bool(told) and all(kind == "absent" for kind in told)

    @property
    def visible_accelerators(self) -> tuple[Accelerator, ...]:
        """The cards this process may use: those not certainly hidden.

        >>> hidden = Accelerator("nvidia", visible=False)
        >>> Hardware(accelerators=(hidden,)).visible_accelerators
        ()
        """
        return tuple(card for card in self.accelerators if card.visible is not False)
