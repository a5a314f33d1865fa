"""Which of the detectors that stackconf brings need a process of their own here.

A process costs more than the few small files that say that there is nothing to ask it. A detector is
left out only where it is certain what it would say. The host's own reads nothing but the kernel's files
below /proc and /sys, in Python alone: there is no driver in it that could hang, crash or print.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from stackconf.hardware.facts import Fact, Problem
from stackconf.hardware.pci import AMD, INTEL, NVIDIA, Glance
from stackconf.hardware.visibility import variables

if TYPE_CHECKING:
    from stackconf.hardware.kept import Hang, Kept
    from stackconf.hardware.probe import Detector

KFD = "/sys/class/kfd/kfd"

NVIDIA_MARKS = (
    "/dev/nvidiactl",
    "/proc/driver/nvidia",
    "/dev/dxg",
    "/dev/nvmap",
    "/dev/nvhost-ctrl",
    "/dev/nvgpu",
)
"""A loaded driver, Windows' own under WSL, Tegra's. Without any of them NVML finds no driver."""

Answer = Callable[[str, Glance, "Kept | None"], Sequence[Fact] | None]


def without_asking(target: str, name: str, glance: Glance, kept: Kept | None = None) -> Sequence[Fact] | None:
    """What a detector says on this machine, where that needs no process; `None` where it must be asked."""
    answer = _ANSWERS.get(target)
    return None if answer is None else answer(name, glance, kept)


def not_asked(detector: Detector, hang: Hang) -> Sequence[Fact]:
    """What is known of the cards whose driver did not answer a moment ago: nothing, and why."""
    from stackconf.hardware.kept import AGAIN_SECONDS
    from stackconf.hardware.probe import failed

    ago = hang.ago()
    problem = (
        f"did not answer within {hang.deadline:g} s, {ago:.0f} s ago; it is asked again in "
        f"{AGAIN_SECONDS - ago:.0f} s, or at once by `stackconf hardware --no-cache`"
    )
    # These it had told before it hung; they are the environment's, and not the driver's.
    told = variables(os.environ) if detector.target == "stackconf.hardware.nvidia" else ()
    return [*told, failed(detector, problem, "timeout")]


def _host(_: str, glance: Glance, kept: Kept | None) -> Sequence[Fact] | None:
    """Only of this machine: another root may lie on a file system that does not answer."""
    if not glance.files.real or not sys.platform.startswith("linux") or not glance.files.exists("/proc/self"):
        return None
    from stackconf.hardware.host import read_host

    return read_host(kept=kept)


def _nvidia(name: str, glance: Glance, _kept: Kept | None) -> Sequence[Fact] | None:
    """NVML speaks of this machine, whatever other files are read."""
    files = glance.files
    if not files.real or not sys.platform.startswith("linux") or not files.exists("/sys/bus"):
        return None
    if glance.has(NVIDIA) or any(map(files.exists, NVIDIA_MARKS)):
        return None
    reason = "no NVIDIA card on the PCI bus, and no NVIDIA driver"
    return [*variables(os.environ), Problem(name, "accelerators", "absent", reason)]


def _amd(_: str, glance: Glance, _kept: Kept | None) -> Sequence[Fact] | None:
    return None if glance.files.exists(KFD) or glance.has(AMD) else ()


def _intel(_: str, glance: Glance, _kept: Kept | None) -> Sequence[Fact] | None:
    return None if glance.has(INTEL) else ()


def _apple(_: str, glance: Glance, _kept: Kept | None) -> Sequence[Fact] | None:
    return None if glance.files.real and sys.platform == "darwin" else ()


_ANSWERS: Mapping[str, Answer] = {
    "stackconf.hardware.host": _host,
    "stackconf.hardware.nvidia": _nvidia,
    "stackconf.hardware.amd": _amd,
    "stackconf.hardware.intel": _intel,
    "stackconf.hardware.apple": _apple,
}
"""By target. What is not here is always asked."""
