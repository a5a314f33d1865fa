"""The setting `placement` of the `stackconf:` section: which provider has which accelerators.

    stackconf:
      placement:
        inference/vllm: {cards: [0, 1], memory: 0.6}
        inference/small: {cards: [1], memory: 8GiB}

What is read here needs no machine: the form, the amounts, the providers' names. Whether the cards are
there is known once there is a machine (`hardware/shares.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from stackconf.suggest import closest, did_you_mean
from stackconf.types import Level, Placement

KEYS = ("cards", "memory")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([KMGTP]i?B|B)", re.IGNORECASE)
_POWERS = "KMGTP"
_FORM = "write `{cards: [0, 1], memory: 0.6}`"
_LONGEST_NAME = 100
_MOST_CARDS = 1024
_NUMBER = re.compile(r"[0-9]{1,5}")


class Report(Protocol):
    """How a fault is told: its text, the place below `placement`, and what to do."""

    def __call__(
        self,
        message: str,
        path: Sequence[str | int],
        /,
        *,
        hint: str = "",
        level: Level = "error",
        key: bool = False,
    ) -> None:
        """Tell it."""


def read_placement(
    data: Any, providers: Sequence[str], disabled_apis: frozenset[str], report: Report
) -> dict[str, Placement]:
    """The placements of providers that the stack has. Everything else is reported."""
    if not isinstance(data, Mapping):
        report("`placement` must map providers to what they have", (), hint=f"{_FORM} below a provider")
        return {}
    found = {}
    for name, value in data.items():
        if name not in providers:
            off = str(name).partition("/")[0] in disabled_apis
            report(
                f"the stack has no provider `{_shown(name)}`" + (" that is enabled" if off else ""),
                (name,),
                hint=_meant(str(name), providers) or _those(providers),
                level="warning" if off else "error",
                key=True,
            )
            continue
        placed = _placement(
            value, lambda message, *path, _at=name, **said: report(message, (_at, *path), **said)
        )
        if placed is not None:
            found[name] = placed
    return found


def _meant(name: str, providers: Sequence[str]) -> str:
    """The provider that was surely meant: an api in common does not make two ids alike."""
    own = name.rpartition("/")[2]
    alike = [key for key in providers if closest(own, [key.partition("/")[2]])]
    return did_you_mean(name, alike)


def _those(providers: Sequence[str]) -> str:
    return f"it has {', '.join(providers[:8])}{', ...' * (len(providers) > 8)}" if providers else ""  # noqa: PLR2004 (a short line)


def _placement(value: Any, report: Callable[..., None]) -> Placement | None:
    if not isinstance(value, Mapping):
        report("a placement is a mapping of `cards` and `memory`", hint=_FORM)
        return None
    for key in value:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS) or "there are `cards` and `memory`"
            report(f"a placement has no `{_shown(key)}`", key, hint=hint, key=True)
    if not value.keys() & set(KEYS):
        report("a placement says nothing", hint=_FORM)
        return None
    return Placement(_cards(value.get("cards"), report), _memory(value.get("memory"), report))


def _cards(value: Any, report: Callable[..., None]) -> tuple[int | str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > _MOST_CARDS:
        report("`cards` must be a list", "cards", hint="write `cards: [0, 1]`; none: `cards: []`")
        return None
    found: list[int | str] = []
    for index, each in enumerate(value):
        card = int(each) if isinstance(each, str) and _NUMBER.fullmatch(each) else each
        usable = isinstance(card, (int, str)) and not isinstance(card, bool) and card != ""
        if not usable or card in found:
            what = "is there twice" if card in found else "is no card"
            hint = "" if card in found else "give its index, PCI address or uuid"
            report(f"`{_shown(each)}` {what}", "cards", index, hint=hint)
            continue
        found.append(str(card)[:_LONGEST_NAME] if isinstance(card, str) else card)
    return tuple(found)


def _memory(value: Any, report: Callable[..., None]) -> float | int | None:
    """A fraction of each card, or bytes."""
    if value is None:
        return None
    amount = _amount(value)
    if amount is None:
        hint = "write a fraction such as `0.6`, or a size such as `24GiB`"
        report(f"`memory` must be a part of each card, and is `{_shown(value)}`", "memory", hint=hint)
    return amount


def _amount(value: Any) -> float | int | None:
    """Up to 1 a fraction, above it bytes.

    >>> _amount(0.6), _amount("0.5"), _amount(1), _amount("8GiB"), _amount("1.5 GB"), _amount(-1)
    (0.6, 0.5, 1.0, 8589934592, 1500000000, None)
    """
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is not None:
            size = int(float(match[1]) * _unit(match[2]))
            return size if size > 1 else None
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return None
    if value <= 1:
        return float(value)
    return value if isinstance(value, int) else None


def _unit(text: str) -> int:
    if len(text) == 1:
        return 1
    base = 1024 if "i" in text.lower() else 1000
    return int(base ** (_POWERS.index(text[0].upper()) + 1))


def _shown(value: object) -> str:
    text = "".join(char if char.isprintable() else "?" for char in str(value)[:61])
    return text if len(text) <= 60 else f"{text[:60]}..."  # noqa: PLR2004 (a short line)
