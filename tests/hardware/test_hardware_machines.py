"""Every machine as all detectors together see it, compared with what was read and believed once.

After a change that is meant: `STACKCONF_WRITE_GOLDEN=1 pytest tests/hardware/test_hardware_machines.py`,
then read the difference line by line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attrs import fields, has
from machines import write
from machines.boxes import BOXES

from stackconf.hardware.codec import from_dict, to_dict
from stackconf.hardware.discovery import discover, fingerprint
from stackconf.hardware.files import ranges

if TYPE_CHECKING:
    from stackconf.hardware.facts import Hardware, Peer

WRITING = bool(os.environ.get("STACKCONF_WRITE_GOLDEN"))
GOLDEN = Path(__file__).parent / "machines" / "golden"
SHORT = {"memory_bytes", "total_bytes", "usable_bytes", "free_bytes", "available_bytes", "swap_bytes"}


def told(hardware: Hardware) -> str:
    """A machine in lines that a person can check. What all cards have in common is said once."""
    lines = [
        *_lines("host", hardware.host),
        *_lines("cpu", hardware.cpu),
        *_lines("memory", hardware.memory),
    ]
    cards = [dict(_said(card)) for card in hardware.accelerators]
    first = cards[0] if cards else {}
    common = {key: value for key, value in first.items() if all(card.get(key) == value for card in cards)}
    lines += [f"every card: {key} = {value}" for key, value in common.items()]
    for number, card in enumerate(cards):
        rest = "; ".join(f"{key} = {value}" for key, value in card.items() if key not in common)
        lines.append(f"card {number}: {rest}" if rest else f"card {number}")
    if not cards:
        lines.append("no cards" if hardware.certainly_no_accelerator else "perhaps cards")
    lines += [f"variable {each.variable} = {each.value!r}" for each in hardware.visibility]
    lines += [f"problem {problem}" for problem in hardware.problems]
    return "\n".join(lines) + "\n"


def _lines(title: str, fact: Any) -> Iterator[str]:
    return (f"{title}: {key} = {value}" for key, value in _said(fact))


def _said(fact: Any) -> Iterator[tuple[str, str]]:
    for item in fields(type(fact)):
        value = getattr(fact, item.name)
        if value is not None and value != item.default:
            yield item.name, _shown(item.name, value)


def _peer(peer: Peer) -> str:
    path = "" if peer.path is None else f" by {peer.path}"
    return f"{peer.index}: {peer.link}{path}{DIRECT[peer.direct]}"


DIRECT = {True: ", direct", False: ", not direct", None: ""}
SPECIAL = {
    "nominal": lambda value: f"{value.slug} (by {value.matched_by})",
    "isa": lambda value: " ".join(sorted(value)),
    "affinity": ranges,
    "cpus": ranges,
    "near_cpus": ranges,
    "peers": lambda value: ", ".join(map(_peer, value)) or "none",
}


def _shown(name: str, value: Any) -> str:
    if name in SHORT:
        return f"{value / 2**20:.10g} MiB"
    if name in SPECIAL:
        return SPECIAL[name](value)
    if isinstance(value, tuple) and value and has(type(value[0])):
        return " | ".join("(" + ", ".join(f"{key} {each}" for key, each in _said(one)) + ")" for one in value)
    return repr(value) if isinstance(value, str) else str(value)


@pytest.fixture
def looked_at(tmp_path, monkeypatch, stub, old_stub):
    """A box as the detectors of stackconf see it, each in its own process."""

    def look(name: str, **environment: str) -> Hardware:
        box = BOXES[name]
        root = tmp_path / name
        if not root.exists():
            write(root, box.tree, links=box.links)
        cards = tmp_path / "cards.txt"
        cards.write_text(box.cards, encoding="utf-8")
        for variable, value in {**box.environment, **environment}.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("STACKCONF_NVML_STUB", str(cards))
        monkeypatch.setenv("LD_LIBRARY_PATH", str(old_stub if box.driver == "old" else stub))
        return discover(root=root, deadline=box.deadline)

    return look


@pytest.mark.parametrize("name", BOXES)
def test_a_machine_is_seen_as_it_is(name, looked_at):
    seen = told(looked_at(name))
    file = GOLDEN / f"{name}.txt"
    if WRITING:
        file.parent.mkdir(exist_ok=True)
        file.write_text(seen, encoding="utf-8")
    assert seen == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["8x-h100", "mig-7x1g.10gb", "8x-mi300x"])
def test_a_machine_survives_being_written_down(name, looked_at):
    hardware = looked_at(name)
    assert from_dict(to_dict(hardware)) == hardware
    assert fingerprint(from_dict(to_dict(hardware))) == fingerprint(hardware)


def test_there_is_a_file_for_each_machine_and_no_other():
    assert {file.stem for file in GOLDEN.iterdir()} == set(BOXES)
