"""What a provider author tests with: machines made to order."""

from __future__ import annotations

from collections.abc import Sequence

from stackconf.hardware.facts import Accelerator, Cpu, Hardware, Host, Limit, Memory, Problem

GIB = 1024**3


def machine(
    *,
    cores: int = 8,
    memory_gib: float = 32,
    cpu_quota: float | None = None,
    memory_limit_gib: float | None = None,
    isa: Sequence[str] = ("avx2", "f16c", "fma"),
    accelerators: Sequence[Accelerator] = (),
) -> Hardware:
    """A consistent machine with two hyper-threads per physical core, for tests of `default_config`.

    `cpu_quota` is in CPUs. Without accelerators, it is certain that there are none.

    >>> machine(cores=8, cpu_quota=2.5).cpu.usable_physical_cores
    2
    >>> machine(memory_gib=64, memory_limit_gib=16).memory.usable_bytes == 16 * GIB
    True
    """
    threads = 2 * cores
    total = int(memory_gib * GIB)
    cpu_limits = () if cpu_quota is None else (Limit(cpu_quota, "cgroup v2 cpu.max"),)
    limit = None if memory_limit_gib is None else int(memory_limit_gib * GIB)
    memory_limits = () if limit is None else (Limit(limit, "cgroup v2 memory.max"),)
    return Hardware(
        host=Host(os="Linux", architecture="x86_64", container="", wsl=0, cgroup="v2"),
        cpu=Cpu(
            model="Synthetic CPU",
            vendor="GenuineIntel",
            architecture="x86_64",
            sockets=1,
            physical_cores=cores,
            logical_cores=threads,
            affinity=tuple(range(threads)),
            usable_physical_cores=cores if cpu_quota is None else max(1, min(cores, int(cpu_quota))),
            usable_cores=float(threads) if cpu_quota is None else min(float(threads), cpu_quota),
            limits=cpu_limits,
            bound_by=cpu_limits[0].source if cpu_limits else "cores",
            isa=frozenset(isa),
        ),
        memory=Memory(
            total_bytes=total,
            available_bytes=total,
            usable_bytes=total if limit is None else min(total, limit),
            limits=memory_limits,
            bound_by=memory_limits[0].source if memory_limits else "total",
        ),
        accelerators=tuple(accelerators),
        problems=() if accelerators else (Problem("nvidia", "accelerators", "absent", "no NVIDIA driver"),),
    )


def no_hardware() -> Hardware:
    """A machine of which nothing could be discovered: every default must cope with it.

    >>> no_hardware().cpu.usable_cores is None
    True
    """
    return Hardware(problems=(Problem("host", "everything", "error", "nothing could be read"),))
