"""The machines of `--hardware`: a file, standard input, or an expression; and how a command says so."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from stackconf.errors import InvalidConfig

if TYPE_CHECKING:
    from stackconf.cli.options import Settings
    from stackconf.hardware.facts import Hardware

_LONGEST_LABEL = 24


class Given(NamedTuple):
    """One machine: the option's text, and what is known about it."""

    text: str
    hardware: Hardware

    @property
    def is_expression(self) -> bool:
        """Whether the text itself describes the machine."""
        return not _is_file(self.text)

    def __str__(self) -> str:
        where = str(self.hardware.provenance)
        if self.is_expression:
            return where
        return f"{'standard input' if self.text == '-' else self.text}, {where}"

    @property
    def label(self) -> str:
        """A short name: the cards, or what the file is called."""
        if not self.is_expression:
            return "stdin" if self.text == "-" else Path(self.text).stem
        expression = getattr(self.hardware.provenance, "expression", None) or self.text
        cards = [part for part in expression.split(",") if "=" not in part]
        return "+".join(cards) or expression.split(",")[0]

    def data(self) -> dict[str, Any]:
        """What the option said, and where the machine is from, for `--json`."""
        return {"given": self.text, **provenance_data(self.hardware)}


def provenance_data(hardware: Hardware) -> dict[str, Any]:
    """Where a machine is from."""
    from attrs import asdict

    return {} if hardware.provenance is None else asdict(hardware.provenance)


def machines(settings: Settings) -> list[Given]:
    """Every machine that `--hardware` names, in order. Raises `InvalidConfig`."""
    if settings.hardware:
        from stackconf.cli.opening import server_here

        server_here(settings)  # which refuses it
    if settings.hardware.count("-") > 1:
        raise InvalidConfig("standard input has one machine; --hardware - was given twice")
    return [Given(text, _read(text)) for text in settings.hardware]


def one_machine(settings: Settings) -> Given | None:
    """The machine that `--hardware` names, or `None`: this one. Raises `UsageError` for several."""
    if len(settings.hardware) > 1:
        raise click.UsageError("one --hardware at a time; `stackconf plan` puts several side by side")
    return next(iter(machines(settings)), None)


def labels(given: list[Given]) -> list[str]:
    """A name for each machine that no other has; short where that tells them apart.

    >>> from stackconf.hardware import simulate
    >>> labels([Given(each, simulate(each)) for each in ("l4:2,cpu=4", "t4,cpu=4", "t4,cpu=8")])
    ['l4:2', 't4,cpu=4', 't4,cpu=8']
    """
    short = Counter(each.label for each in given)
    names = [
        each.label if short[each.label] == 1 and len(each.label) <= _LONGEST_LABEL else each.text
        for each in given
    ]
    seen: Counter[str] = Counter()
    for number, name in enumerate(names):
        seen[name] += 1
        if seen[name] > 1:
            names[number] = f"{name} ({seen[name]})"
    return names


def _is_file(text: str) -> bool:
    """Whether the text names a file, told from its form alone.

    >>> [_is_file(each) for each in ("-", "box.json", "./box", "snapshots/box", "l4:2,cpu=8/16")]
    [True, True, True, True, False]
    """
    if text == "-" or text.lower().endswith(".json"):
        return True
    return text.startswith((".", "~", os.sep)) or (os.sep in text and "=" not in text)


def _read(text: str) -> Hardware:
    from stackconf.hardware import simulate
    from stackconf.hardware.snapshot import MAX_BYTES, from_json, load

    if text == "-":
        return from_json(sys.stdin.buffer.read(MAX_BYTES + 1), "standard input")
    if _is_file(text):
        return load(Path(text).expanduser())
    try:
        return simulate(text)
    except InvalidConfig:
        if "=" not in text and Path(text).is_file():
            raise InvalidConfig(f"{text} is a file; give it as --hardware ./{text}") from None
        raise
