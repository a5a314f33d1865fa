"""Whether this process is in a container, of which kind, and whether under WSL."""

from __future__ import annotations

import re

from stackconf.hardware.files import Files

INITIAL_NAMESPACES = {"pid": 0xEFFFFFFC, "ipc": 0xEFFFFFFF, "uts": 0xEFFFFFFE}
"""Inode numbers of the namespaces that the kernel starts with (include/linux/proc_ns.h)."""

CONTAINER_GROUPS = (
    ("kubernetes", re.compile(r"/kubepods")),
    ("docker", re.compile(r"/docker[/-][0-9a-f]{12,}|/docker/")),
    ("podman", re.compile(r"/libpod-|/libpod_parent")),
    ("lxc", re.compile(r"/lxc[./]|/lxc\.payload")),
    ("containerd", re.compile(r"cri-containerd|/containerd")),
)


def wsl_version(files: Files, kernel: str | None) -> int | None:
    """1 or 2, from the kernel's name: `4.4.0-22621-Microsoft`, `5.15.90.1-microsoft-standard-WSL2`."""
    if kernel is None:
        return None
    if "microsoft" in kernel.lower():
        return 1 if kernel.endswith("-Microsoft") and kernel.startswith(("3.", "4.4.")) else 2
    # A kernel that the user built has another name, yet Windows' interpreter is registered.
    own = any(files.exists(f"/proc/sys/fs/binfmt_misc/{name}") for name in ("WSLInterop", "WSLInterop-late"))
    return 2 if own or "WSL2" in kernel else 0


def container(files: Files, under_wsl: int | None) -> str | None:
    """The kind of container, `""` when certainly none, `None` when nothing tells.

    In the kernel's first namespaces there is no container, whatever an image left lying about:
    virtual machines are built from images that contain `/.dockerenv`. A distribution under WSL
    has namespaces of its own and is no container.
    """
    initial = _initial_namespaces(files)
    if initial:
        return ""
    marked = _marked(files)
    if marked:
        return marked
    # systemd as PID 1 says in /run/systemd/container, any other manager in `container=`.
    told = files.exists("/run/systemd/system") or _environment(files, "/proc/1/environ")
    if under_wsl or (told and initial is None):
        return ""
    reason = "nothing tells a container from a host here"
    if initial is False:
        reason = "a PID namespace of its own, of a kind that nothing names"
    files.problem("host.container", "unsupported", reason)
    return None


def _initial_namespaces(files: Files) -> bool | None:
    """Whether this process is in the first PID, IPC and UTS namespaces, `None` if unknown.

    `False` only where its PID namespace is a later one, as in containers and desktop sandboxes.
    """
    own = {name: files.link(f"/proc/self/ns/{name}") for name in INITIAL_NAMESPACES}
    if all(own[name] == f"{name}:[{number}]" for name, number in INITIAL_NAMESPACES.items()):
        return True
    pid = own["pid"]
    return None if pid is None or pid == f"pid:[{INITIAL_NAMESPACES['pid']}]" else False


def _marked(files: Files) -> str | None:
    surroundings = _environment(files, "/proc/self/environ") + _environment(files, "/proc/1/environ")
    if files.exists("/var/run/secrets/kubernetes.io") or any(
        entry.startswith("KUBERNETES_SERVICE_HOST=") for entry in surroundings
    ):
        return "kubernetes"
    groups = f"{files.text('/proc/self/cgroup', 'host.container') or ''}\n{_mounted_groups(files)}"
    named = next((kind for kind, pattern in CONTAINER_GROUPS if pattern.search(groups)), None)
    if named == "kubernetes":
        return named
    if files.exists("/run/.containerenv"):
        return "podman"
    if files.exists("/.dockerenv"):
        return "docker"
    told = [entry.removeprefix("container=") for entry in surroundings if entry.startswith("container=")]
    told.append((Files(files.root).text("/run/systemd/container", "host.container") or "").strip())
    return next((kind for kind in told if kind not in {"", "wsl"}), None) or named


def _mounted_groups(files: Files) -> str:
    text = files.text("/proc/self/mountinfo", "host.container") or ""
    return "\n".join(line for line in text.splitlines() if " - cgroup" in line)


def _environment(files: Files, path: str) -> list[str]:
    # Reading another process's environment is often refused, which is no problem worth a line.
    text = Files(files.root).text(path, "host.container") or ""
    return [entry for entry in text.split("\0") if entry]
