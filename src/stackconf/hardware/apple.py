"""The built-in Apple plugin: the graphics of Apple's own chips, which share the host's memory.

Asks `system_profiler`, which macOS brings. On any other system there is nothing to ask.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stackconf.hardware.facts import Accelerator, Fact, Problem
from stackconf.hardware.files import Files, chosen_root
from stackconf.hookspecs import hookimpl

stackconf_api = 1

DETECTOR = "apple"
PROFILER = ("/usr/sbin/system_profiler", "-json", "SPDisplaysDataType")
APPLE = "sppci_vendor_Apple"


@hookimpl
def discover_hardware() -> Iterable[Fact]:
    """The graphics of this machine's chip; nothing on any other system than macOS."""
    return read_apple(_profiled) if on_macos() and Files(chosen_root()).real else ()


def on_macos() -> bool:
    """Whether this is the system that has the program."""
    return sys.platform == "darwin"


def read_apple(profile: Callable[[], str]) -> Iterator[Fact]:
    """`Accelerator` and `Problem` facts from what `system_profiler -json SPDisplaysDataType` prints.

    >>> import json
    >>> chip = {"sppci_model": "Apple M2", "sppci_cores": "10", "spdisplays_vendor": "sppci_vendor_Apple"}
    >>> card, why = read_apple(lambda: json.dumps({"SPDisplaysDataType": [chip]}))
    >>> card.name, card.multiprocessors, card.memory_kind, card.memory_bytes
    ('Apple M2', 10, 'unified', None)
    """
    import json

    try:
        shown = json.loads(profile())["SPDisplaysDataType"]
        cards = [card for card in shown if card.get("spdisplays_vendor") == APPLE]
    except Exception as error:  # noqa: BLE001 - the program may be missing, refuse, or change its form
        reason = f"{PROFILER[0]}: {type(error).__name__}: {error}"
        yield Problem(DETECTOR, "accelerators", "error", reason)
        return
    for index, card in enumerate(cards):
        yield _card(index, card)
    if cards:
        yield Problem(DETECTOR, "accelerators.memory_bytes", "unsupported", "it shares the host's memory")


def _card(index: int, card: Mapping[str, Any]) -> Accelerator:
    cores = str(card.get("sppci_cores", ""))
    return Accelerator(
        "apple",
        index=index,
        name=str(card.get("sppci_model") or "").strip() or None,
        memory_kind="unified",
        multiprocessors=int(cores) if cores.isascii() and cores.isdecimal() and int(cores) else None,
        visible=True,
        ordinal=index,
    )


def _profiled() -> str:
    import subprocess

    run = subprocess.run(PROFILER, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)  # noqa: S603 - a fixed command
    return run.stdout
