"""Which of the detectors that stackconf brings have something to look for here.

A process costs more than the few small files that say that there is nothing to ask it. Only
detectors that would certainly say nothing are left out; one that would report that nothing is there
is asked all the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from stackconf.hardware.pci import AMD, INTEL, Glance

KFD = "/sys/class/kfd/kfd"


def _amd(glance: Glance) -> bool:
    return glance.files.exists(KFD) or glance.has(AMD)


def _intel(glance: Glance) -> bool:
    return glance.has(INTEL)


def _apple(glance: Glance) -> bool:
    return glance.files.real and sys.platform == "darwin"


_NEEDS: Mapping[str, Callable[[Glance], bool]] = {
    "stackconf.hardware.amd": _amd,
    "stackconf.hardware.intel": _intel,
    "stackconf.hardware.apple": _apple,
}
"""By target. What is not here is always asked."""


def applies(target: str, glance: Glance) -> bool:
    """Whether the detector may have something to say on this machine."""
    needs = _NEEDS.get(target)
    return needs is None or needs(glance)
