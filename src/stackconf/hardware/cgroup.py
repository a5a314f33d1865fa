"""What the process's control groups allow: cgroup v1, v2 and the hybrid of both.

A limit may stand in the process's own group or in any ancestor, so each controller's chain is
walked from the own group up to the root of its mount. `/proc/self/cgroup` names the group,
`/proc/self/mountinfo` says where that hierarchy is mounted and from which of its groups on (in a
container the mount's root is often the container's own group). In a hybrid system `0::/` exists
although the controllers are in v1. Sources: cgroups(7), proc_pid_mountinfo(5), the kernel's
admin-guide/cgroup-v1/memory.rst and admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Literal, TypeAlias

from attrs import frozen

from stackconf.hardware.facts import Limit
from stackconf.hardware.files import Files, cpu_list, whole_number

Mode: TypeAlias = Literal["v1", "v2", "hybrid", "none"]

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


@frozen
class Membership:
    """One line of /proc/self/cgroup."""

    controllers: frozenset[str]
    path: str
    unified: bool


@frozen
class Mount:
    """One mounted hierarchy: the group `root` of it is seen at `point`."""

    point: str
    root: str
    unified: bool
    options: frozenset[str]


@frozen
class Chain:
    """The visible groups that bind this process for one controller, its own first."""

    version: Literal["v1", "v2"]
    groups: tuple[str, ...]

    def source(self, group: str, file: str) -> str:
        """How a limit names its origin."""
        return f"cgroup {self.version} {group}/{file}"


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
    cpu = _chain(files, "cpu", CPU, memberships, mounts)
    memory = _chain(files, "memory", MEMORY, memberships, mounts)
    # What a cpuset forbids is missing from Cpus_allowed_list too, so not seeing it costs nothing.
    unasked = Files(files.root, files.detector)
    cpuset = _chain(unasked, "cpuset", "cpu.affinity", memberships, mounts)
    bounds = list(_memory_limits(files, memory)) if memory else []
    headrooms = [room for room in (_headroom(files, memory, *bound) for bound in bounds) if room is not None]
    return Cgroups(
        mode=_mode(memberships, mounts),
        path=_own_path(memberships),
        cpu_limits=tuple(_cpu_limits(files, cpu)) if cpu else (),
        memory_limits=tuple(limit for _, limit in bounds),
        cpuset=_cpuset(files, cpuset) if cpuset else None,
        headroom_bytes=min(headrooms, default=None),
    )


def parse_memberships(text: str) -> list[Membership]:
    r"""The lines of /proc/self/cgroup, `number:controllers:path`; others are left out.

    >>> parse_memberships("4:cpu,cpuacct:/app\n0::/\n")[0].path
    '/app'
    """
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"([0-9]+):([^:]*):(/.*)", line)
        if match:
            controllers = frozenset(filter(None, match[2].split(",")))
            found.append(Membership(controllers, match[3], unified=match[1] == "0" and not controllers))
    return found


def parse_mounts(text: str) -> list[Mount]:
    """The cgroup mounts of /proc/self/mountinfo."""
    found = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        place, kind = before.split(), after.split()
        # 5 fields up to the mount point; the file system type, its source and its options.
        if not separator or len(place) < 5 or len(kind) < 3 or kind[0] not in {"cgroup", "cgroup2"}:  # noqa: PLR2004
            continue
        options = frozenset(kind[2].split(","))
        found.append(Mount(_unescaped(place[4]), _unescaped(place[3]), kind[0] == "cgroup2", options))
    return found


def below(path: str, root: str) -> str | None:
    """`path` as seen from a mount whose root is the group `root`; `None` when it is not below it.

    Both are relative to the reader's cgroup namespace, so either may begin with `/..`.

    >>> below("/docker/abc/app", "/docker/abc"), below("/app", "/"), below("/", "/")
    ('/app', '/app', '')
    >>> below("/../../x", "/../.."), below("/../x", "/"), below("/app", "/..")
    ('/x', None, None)
    """
    parts, prefix = path.strip("/").split("/"), root.strip("/").split("/")
    parts, prefix = [part for part in parts if part], [part for part in prefix if part]
    rest = parts[len(prefix) :]
    if parts[: len(prefix)] != prefix or ".." in rest:
        return None
    return "".join(f"/{part}" for part in rest)


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


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _mode(memberships: list[Membership], mounts: list[Mount]) -> Mode:
    controllers = {name for line in memberships for name in line.controllers if not name.startswith("name=")}
    unified = any(line.unified for line in memberships)
    if not controllers:
        return "v2" if unified else "v1" if memberships else "none"
    return "hybrid" if unified and any(mount.unified for mount in mounts) else "v1"


def _own_path(memberships: list[Membership]) -> str | None:
    for controller in ("memory", "cpu"):
        for line in memberships:
            if controller in line.controllers:
                return line.path
    others = sorted(memberships, key=lambda line: not line.unified)
    return others[0].path if others else None


def _chain(
    files: Files, controller: str, fact: str, memberships: list[Membership], mounts: list[Mount]
) -> Chain | None:
    """The groups that `controller` binds this process by, or `None` where it has none."""
    line = next((line for line in memberships if controller in line.controllers), None)
    line = line or next((line for line in memberships if line.unified), None)
    if line is None:
        return None
    version: Literal["v1", "v2"] = "v2" if line.unified else "v1"
    fitting = [mount for mount in mounts if mount.unified == line.unified]
    if not line.unified:
        fitting = [mount for mount in fitting if controller in mount.options]
    elif any(line.controllers for line in memberships) and not fitting:
        return None  # v1 system: `0::/` without a mount carries no controllers
    if not fitting:
        files.problem(
            fact,
            "unsupported",
            f"cgroup {version} {controller} is not mounted here, so a limit in {line.path} cannot be seen",
        )
        return None
    return _walk(files, line, fitting, fact, version)


def _walk(
    files: Files, line: Membership, mounts: list[Mount], fact: str, version: Literal["v1", "v2"]
) -> Chain | None:
    candidates = []
    for mount in mounts:
        rest = below(line.path, mount.root)
        if rest is not None and files.exists(mount.point + rest):
            candidates.append((rest, mount))
    if candidates:
        # The mount that shows most of the path shows most of the ancestors.
        rest, mount = max(candidates, key=lambda found: found[0].count("/"))
        return Chain(version, _upwards(mount.point.rstrip("/"), rest))
    ancestors = [mount for mount in mounts if mount.root.startswith("/..") and ".." not in line.path]
    seen = f"; only {ancestors[0].point} above it is" if ancestors else ""
    files.problem(
        fact,
        "unsupported",
        f"cgroup {line.path} is not visible below {mounts[0].point}{seen}; a limit in it cannot be seen",
    )
    return Chain(version, (ancestors[0].point.rstrip("/"),)) if ancestors else None


def _upwards(point: str, rest: str) -> tuple[str, ...]:
    parts = rest.strip("/").split("/") if rest else []
    return tuple("/".join([point, *parts[:count]]) for count in range(len(parts), -1, -1))


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
