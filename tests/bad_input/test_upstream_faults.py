"""The faults that upstream passed over or answered with a traceback: one clear line for each."""

from __future__ import annotations

import pytest
from bad_files import said
from upstream_faults import NEW, NEW_STACK, OLD, OLD_STACK

CASES = {f"0.2.12: {name}": (OLD_STACK, old, new) for name, old, new in OLD}
CASES |= {f"1.5.0: {name}": (NEW_STACK, old, new) for name, old, new in NEW}
SAID = said("said_upstream.txt")
RIGHT = ("0.2.12: a conditional that is off", "0.2.12: agents without a store")
RIGHT += ("1.5.0: numeric secret from the environment",)
"""What upstream stumbles over, or may stumble over, and what is right."""


@pytest.mark.parametrize("text", [OLD_STACK, NEW_STACK], ids=["0.2.12", "1.5.0"])
def test_the_files_without_a_fault_are_right(cli, here, text):
    (here / "stack.yaml").write_text(text, encoding="utf-8")
    ran = cli("check")
    assert (ran.code, ran.err) == (0, "")


def test_every_fault_is_one_line():
    assert (len(OLD), len(NEW)) == (15, 19)
    assert SAID.keys() == CASES.keys()
    assert {name: len(lines) for name, lines in SAID.items()} == {name: name not in RIGHT for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_it_is_said(cli, here, name):
    text, old, new = CASES[name]
    assert text.count(old) == 1
    (here / "stack.yaml").write_text(text.replace(old, new), encoding="utf-8")
    ran = cli("check")
    assert ran.lines() == [f"stack.yaml:{line.replace('@FILE@', 'stack.yaml')}" for line in SAID[name]]
    assert ran.code == len(SAID[name])
