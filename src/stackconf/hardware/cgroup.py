"""What the process's control groups allow: cgroup v1, v2 and the hybrid of both.

A limit may stand in the process's own group or in any ancestor, so each controller's chain is
walked from the own group up to the root of its mount (see `cgroup_chain`). Sources: the kernel's
admin-guide/cgroup-v1/memory.rst and admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from attrs import frozen

from stackconf.hardware.cgroup_chain import (
    Chain,
    Mode,
    chain_of,
    mode_of,
    own_path,
    parse_memberships,
    parse_mounts,
)
from stackconf.hardware.facts import Limit
from stackconf.hardware.files import Files, cpu_list, whole_number

UNLIMITED = math.inf
NO_LIMIT_V1 = 2**60
"""v1 writes "unlimited" as LONG_MAX rounded down to a page (9223372036854771712 with 4 KiB
pages, less with 64 KiB pages); no machine has an exbibyte of memory."""

CPU = "cpu.limits"
MEMORY = "memory.limits"


@frozen
class Cgroups:
    """What the groups of this process say. `None` in `mode` and `path` means unknown.

    `headroom_bytes` is what can still be allocated below the tightest memory limit, cache that
    the kernel would drop counted as free.
    """

    mode: Mode | None = None
    path: str | None = None
    cpu_limits: tuple[Limit, ...] = ()
    memory_limits: tuple[Limit, ...] = ()
    cpuset: tuple[int, ...] | None = None
    headroom_bytes: int | None = None


def read_cgroups(files: Files) -> Cgroups:
    """Everything above for the process that `/proc/self` below `files.root` stands for."""
    text = files.text("/proc/self/cgroup", CPU)
    if text is None:
        # A kernel without control groups has /proc/self but not this file.
        without = files.exists("/proc/self/status") and not files.exists("/proc/self/cgroup")
        return Cgroups(mode="none" if without else None)
    memberships = parse_memberships(text)
    mounts = parse_mounts(files.text("/proc/self/mountinfo", CPU) or "")
    if text.strip() and not memberships:
        files.garbage("/proc/self/cgroup", CPU, text)
        return Cgroups()
    cpu = chain_of(files, "cpu", CPU, memberships, mounts)
    memory = chain_of(files, "memory", MEMORY, memberships, mounts)
    # What a cpuset forbids is missing from Cpus_allowed_list too, so not seeing it costs nothing.
    unasked = Files(files.root, files.detector)
    cpuset = chain_of(unasked, "cpuset", "cpu.affinity", memberships, mounts)
    bounds = list(_memory_limits(files, memory)) if memory else []
    headrooms = [room for room in (_headroom(files, memory, *bound) for bound in bounds) if room is not None]
    return Cgroups(
        mode=mode_of(memberships, mounts),
        path=own_path(memberships),
        cpu_limits=tuple(_cpu_limits(files, cpu)) if cpu else (),
        memory_limits=tuple(limit for _, limit in bounds),
        cpuset=_cpuset(files, cpuset) if cpuset else None,
        headroom_bytes=min(headrooms, default=None),
    )


def cpu_max(text: str | None) -> float | None:
    r"""The CPUs that `cpu.max` (v2) grants: `"$MAX $PERIOD"`, microseconds.

    `UNLIMITED` for `max`; `None` for what cannot be understood.

    >>> cpu_max("350000 100000\n"), cpu_max("max 100000"), cpu_max("0 100000"), cpu_max("x")
    (3.5, inf, None, None)
    """
    words = (text or "").split()
    if len(words) != 2:  # noqa: PLR2004 - quota and period
        return None
    period = whole_number(words[1])
    quota = whole_number(words[0])
    if words[0] == "max" and period:
        return UNLIMITED
    return quota / period if quota and period else None


def cfs_quota(quota: str | None, period: str | None) -> float | None:
    """The CPUs that `cpu.cfs_quota_us` and `cpu.cfs_period_us` (v1) grant; -1 is unlimited.

    >>> cfs_quota("150000", "100000"), cfs_quota("-1", "100000"), cfs_quota("150000", "0")
    (1.5, inf, None)
    """
    if (quota or "").strip() == "-1":
        return UNLIMITED
    return cpu_max(f"{(quota or '').strip()} {(period or '').strip()}") if whole_number(quota) else None


def memory_bytes(text: str | None) -> float | None:
    """The bytes that a memory limit grants; `UNLIMITED`, or `None` for what cannot be understood.

    Zero is not understood either: the process that reads it would not be running.

    >>> memory_bytes("1073741824"), memory_bytes("max"), memory_bytes("9223372036854771712")
    (1073741824, inf, inf)
    >>> memory_bytes("-1"), memory_bytes("0"), memory_bytes("4G")
    (inf, None, None)
    """
    if (text or "").strip() in {"max", "-1"}:
        return UNLIMITED
    number = whole_number(text)
    if not number:
        return None
    return UNLIMITED if number >= NO_LIMIT_V1 else number


def _cpu_limits(files: Files, chain: Chain) -> Iterator[Limit]:
    for group in chain.groups:
        file = "cpu.max" if chain.version == "v2" else "cpu.cfs_quota_us"
        text = files.text(f"{group}/{file}", CPU)
        if text is None:
            continue
        if chain.version == "v2":
            amount = cpu_max(text)
        else:
            amount = cfs_quota(text, files.text(f"{group}/cpu.cfs_period_us", CPU))
        if amount is None:
            files.garbage(f"{group}/{file}", CPU, text)
        elif amount != UNLIMITED:
            yield Limit(amount, chain.source(group, file))


def _memory_limits(files: Files, chain: Chain) -> Iterator[tuple[str, Limit]]:
    """Every limit with the group it stands in.

    `memory.high` counts: above it the kernel throttles the process and takes memory back.
    """
    tightest: float = UNLIMITED
    for position, group in enumerate(chain.groups):
        if chain.version == "v1" and position and _flat(files, group):
            break
        for file in ("memory.max", "memory.high") if chain.version == "v2" else ("memory.limit_in_bytes",):
            amount = _amount(files, f"{group}/{file}")
            if amount is not None and amount != UNLIMITED:
                tightest = min(tightest, amount)
                yield group, Limit(amount, chain.source(group, file))
    if chain.version == "v1" and chain.groups:
        yield from _hidden_ancestor(files, chain, tightest)


def _amount(files: Files, path: str) -> float | None:
    text = files.text(path, MEMORY)
    if text is None:
        return None
    amount = memory_bytes(text)
    if amount is None:
        files.garbage(path, MEMORY, text)
    return amount


def _flat(files: Files, group: str) -> bool:
    # Before Linux 5.11 an ancestor's limit binds only where use_hierarchy is 1.
    text = files.text(f"{group}/memory.use_hierarchy", MEMORY)
    return text is not None and text.strip() == "0"


def _hidden_ancestor(files: Files, chain: Chain, tightest: float) -> Iterator[tuple[str, Limit]]:
    """The limit of an ancestor outside the mount, which v1 tells in the own group's statistics."""
    group = chain.groups[0]
    value = _statistics(files, group).get("hierarchical_memory_limit")
    amount = memory_bytes(value) if value is not None else None
    if amount is not None and amount < tightest:
        yield group, Limit(amount, chain.source(group, "memory.stat hierarchical_memory_limit"))


def _headroom(files: Files, chain: Chain | None, group: str, limit: Limit) -> int | None:
    if chain is None:
        return None
    file, cache = "memory.current", "inactive_file"
    if chain.version == "v1":
        file, cache = "memory.usage_in_bytes", "total_inactive_file"
    used = whole_number(files.text(f"{group}/{file}", "memory.available_bytes"))
    if used is None:
        return None
    dropped = whole_number(_statistics(files, group).get(cache)) or 0
    return max(0, int(limit.amount) - max(0, used - dropped))


def _statistics(files: Files, group: str) -> dict[str, str]:
    text = files.text(f"{group}/memory.stat", "memory.available_bytes") or ""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}  # noqa: PLR2004 - name and value


def _cpuset(files: Files, chain: Chain) -> tuple[int, ...] | None:
    """The CPUs of the nearest group that says so; an empty list means "as the parent"."""
    names = ("cpuset.cpus.effective",) if chain.version == "v2" else ("cpuset.effective_cpus", "cpuset.cpus")
    for group in chain.groups:
        for name in names:
            text = files.text(f"{group}/{name}", "cpu.affinity")
            cpus = cpu_list(text)
            if text is not None and cpus is None:
                files.garbage(f"{group}/{name}", "cpu.affinity", text)
            if cpus:
                return cpus
    return None
