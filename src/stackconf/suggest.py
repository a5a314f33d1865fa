"""Did you mean: the known name that a misspelt one was surely meant to be."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHORT_NAME = 4
_SHORT_CUTOFF = 0.65
_CUTOFF = 0.75
_PREFIX_CUTOFF = 0.65
_MOST_NAMED = 12
MAX_NAME = 200
"""Longer names are no misspellings, and comparing them is quadratic."""


def closest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `name` was surely meant to be, or `None`.

    Case, `-` and `_` do not count. In `remote::ollama` the parts before and after `::` are compared
    apart, so that the shared `remote::` does not make two types look alike.

    >>> closest("urll", ["url", "timeout"])
    'url'
    >>> closest("remote::olama", ["remote::vllm", "remote::ollama"])
    'remote::ollama'
    >>> closest("remote::vertex", ["remote::ollama"]) is None
    True
    """
    if not name or len(name) > MAX_NAME:
        return None
    best, best_score = None, 0.0
    wanted = _plain(name)
    for candidate in candidates:
        if len(candidate) > MAX_NAME:
            continue
        score = _score(wanted, _plain(candidate))
        if score > best_score:
            best, best_score = candidate, score
    return best


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """``did you mean `x`?`` for an issue's hint, or an empty string.

    >>> did_you_mean("inferense", ["inference", "safety"])
    'did you mean `inference`?'
    >>> did_you_mean("weather", ["inference", "safety"])
    ''
    """
    match = closest(name, candidates)
    return f"did you mean `{match}`?" if match else ""


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_").strip()


def _score(name: str, candidate: str) -> float:
    """How alike the two are, 0 to 1; 0 where they are not alike enough to say so."""
    head, separator, tail = candidate.partition("::")
    if not separator:
        return _similarity(name, candidate)
    # `remote:ollama` is a misspelling too, so any colon divides the name.
    own_head, own_separator, own_tail = name.partition(":")
    own_tail = own_tail.lstrip(":")
    if not own_separator:
        return _similarity(name, tail) * 0.99
    tails = _similarity(own_tail, tail)
    heads = SequenceMatcher(None, own_head, head, autojunk=False).ratio()
    if tails == 1.0:
        return 0.9 + heads / 10
    return tails * (0.9 + heads / 10) if heads >= _PREFIX_CUTOFF else 0.0


def _similarity(name: str, candidate: str) -> float:
    matcher = SequenceMatcher(None, name, candidate, autojunk=False)
    cutoff = _SHORT_CUTOFF if max(len(name), len(candidate)) <= _SHORT_NAME else _CUTOFF
    if matcher.real_quick_ratio() < cutoff or matcher.quick_ratio() < cutoff:
        return 0.0
    ratio = matcher.ratio()
    return ratio if ratio >= cutoff else 0.0


def known(keys: Iterable[str]) -> str:
    """Which providers there are, where nothing is near to what was said.

    >>> known(["inference/ollama"]), known([])
    ('it has inference/ollama', 'it has no providers')
    >>> known("abcdefghijklmnopqrstuvwxyz")
    'it has a, b, c, d, e, f, g, h, i, j, k, l and 14 more'
    """
    keys = list(keys)
    more = f" and {len(keys) - _MOST_NAMED} more" if len(keys) > _MOST_NAMED else ""
    return f"it has {', '.join(keys[:_MOST_NAMED])}{more}" if keys else "it has no providers"
