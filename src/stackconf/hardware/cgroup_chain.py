"""Which control groups bind this process: its own and their ancestors, as far as they can be seen.

`/proc/self/cgroup` names the group, `/proc/self/mountinfo` says where that hierarchy is mounted and
from which of its groups on (in a container the mount's root is often the container's own group). In
a hybrid system `0::/` exists although the controllers are in v1. Sources: cgroups(7),
proc_pid_mountinfo(5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from stackconf.hardware.files import Files

Mode: TypeAlias = Literal["v1", "v2", "hybrid", "none"]


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


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mode_of(memberships: list[Membership], mounts: list[Mount]) -> Mode:
    """Which cgroup version is in use; hybrid: v1 controllers beside a mounted v2 hierarchy."""
    controllers = {name for line in memberships for name in line.controllers if not name.startswith("name=")}
    unified = any(line.unified for line in memberships)
    if not controllers:
        return "v2" if unified else "v1" if memberships else "none"
    return "hybrid" if unified and any(mount.unified for mount in mounts) else "v1"


def own_path(memberships: list[Membership]) -> str | None:
    """The process's own group: that of the memory controller, else of cpu, else of any."""
    for controller in ("memory", "cpu"):
        for line in memberships:
            if controller in line.controllers:
                return line.path
    others = sorted(memberships, key=lambda line: not line.unified)
    return others[0].path if others else None


def chain_of(
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
