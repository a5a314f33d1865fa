"""Which AMD cards the visibility variables leave to this process.

Source: ROCm's documentation, "GPU isolation techniques": ROCR_VISIBLE_DEVICES takes numbers and
uuids; HIP_VISIBLE_DEVICES takes numbers of what the first one leaves, and CUDA_VISIBLE_DEVICES is
heeded for compatibility where it is not set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from stackconf.hardware.facts import Accelerator

VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


def seen(environment: Mapping[str, str], cards: Sequence[Accelerator]) -> list[Accelerator]:
    """The cards with `visible` and `ordinal`; both `None` where what is written is not certain.

    >>> from stackconf.hardware.facts import Accelerator
    >>> three = [Accelerator("amd", index=n, uuid=f"GPU-{n:016x}") for n in range(3)]
    >>> settings = {"ROCR_VISIBLE_DEVICES": "2,1", "HIP_VISIBLE_DEVICES": "1"}
    >>> [(card.visible, card.ordinal) for card in seen(settings, three)]
    [(False, None), (True, 0), (False, None)]
    """
    order = _chosen(environment.get("ROCR_VISIBLE_DEVICES"), range(len(cards)), cards, uuids=True)
    later = environment.get("HIP_VISIBLE_DEVICES", environment.get("CUDA_VISIBLE_DEVICES"))
    order = None if order is None else _chosen(later, order, cards, uuids=False)
    if order is None:
        return [evolve(card, visible=None, ordinal=None) for card in cards]
    return [
        evolve(card, visible=at in order, ordinal=order.index(at) if at in order else None)
        for at, card in enumerate(cards)
    ]


def _chosen(
    value: str | None, among: Sequence[int], cards: Sequence[Accelerator], *, uuids: bool
) -> list[int] | None:
    """What a list leaves of `among`: it ends at the first entry that names nothing. `None` where an
    entry comes twice or is of a kind whose meaning is not written.
    """
    if value is None:
        return list(among)
    taken: list[int] = []
    for token in (each.strip() for each in value.split(",")):
        if re.fullmatch(r"[0-9]+", token, re.ASCII):
            if int(token) >= len(among):
                break
            found = among[int(token)]
        elif token.upper().startswith("GPU-"):
            match = [at for at in among if (cards[at].uuid or "").lower() == token.lower()]
            if not uuids or len(match) != 1:
                return None
            found = match[0]
        elif token in {"", "-1"}:
            break
        else:
            return None
        if found in taken:
            return None
        taken.append(found)
    return taken
