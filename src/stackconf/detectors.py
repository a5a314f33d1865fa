"""Which detectors look at this machine: those of every enabled hardware plugin.

Apart from the manager, so that a discovery can be under way while the heavier modules load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf.hardware.probe import Detector
from stackconf.registry.metadata import PLUGINS

if TYPE_CHECKING:
    from stackconf.registry.registry import Registry


def detectors_of(registry: Registry) -> list[Detector]:
    """A detector for each enabled hardware plugin and each plugin file with a hook for it; imports
    none of them.
    """
    detectors = [
        Detector(entry.name, entry.target, entry.distribution, entry.version)
        for entry in registry.advertised()
        if entry.group == PLUGINS and entry.enabled
    ]
    return [*detectors, *(Detector(file, file) for file in registry.detector_files())]
