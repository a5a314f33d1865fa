"""Which cards CUDA_VISIBLE_DEVICES lets this process see; NVML does not heed it.

Source: the CUDA C++ programming guide, "CUDA environment variables".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from stackconf.hardware.facts import Accelerator

_Visible: TypeAlias = bool | None


def visible_cards(value: str | None, order: str | None, cards: Sequence[Accelerator]) -> list[_Visible]:
    """For each card, whether CUDA_VISIBLE_DEVICES lets CUDA see it; `None` when that is not certain.

    CUDA reads the list from the left and stops at the first entry that names no card; an entry
    that comes twice hides everything. Numbers count in CUDA's order, which equals NVML's only with
    CUDA_DEVICE_ORDER=PCI_BUS_ID or where all cards are of one model. Of MIG instances CUDA takes
    the first.

    >>> from stackconf.hardware.facts import Accelerator
    >>> pair = [Accelerator("nvidia", index=n, uuid=f"GPU-{n}a", pci_device_id="10de:2330",
    ...                     mig_enabled=False) for n in (0, 1)]
    >>> visible_cards("1", None, pair), visible_cards("GPU-0,9", None, pair), visible_cards("", None, pair)
    ([False, True], [True, None], [False, False])
    """
    if value is None:
        return [True] * len(cards)
    tokens = [token.strip() for token in value.split(",")]
    if re.match(r"(GPU|MIG)-", tokens[0]):
        return _by_uuid(tokens, cards)
    if re.fullmatch(r"[0-9]+", tokens[0], re.ASCII):
        return _by_number(tokens, order, cards)
    # CUDA's reader of numbers might take `0x1` or `gpu-1` for something; anything else names nothing.
    unsure = re.match(r"[0-9+]|gpu-|mig-", tokens[0], re.IGNORECASE)
    return [None if unsure else False] * len(cards)


def _by_number(tokens: Sequence[str], order: str | None, cards: Sequence[Accelerator]) -> list[_Visible]:
    """Numbers mean cards for certain only where every card is known and none is cut up."""
    unsure: list[_Visible] = [None] * len(cards)
    if any(card.uuid is None or card.mig_enabled is not False for card in cards):
        return unsure
    taken: list[int] = []
    for token in tokens:
        if not re.fullmatch(r"[0-9]+", token, re.ASCII):
            if re.match(r"[0-9+A-Za-z]", token):
                return unsure
            break
        if int(token) >= len(cards):
            break
        if int(token) in taken:
            return [False] * len(cards)
        taken.append(int(token))
    models = {card.pci_device_id for card in cards}
    same_order = order == "PCI_BUS_ID" or (len(models) == 1 and None not in models)
    if not same_order and 0 < len(taken) < len(cards):
        return unsure
    return [position in taken for position in range(len(cards))]


def _by_uuid(tokens: Sequence[str], cards: Sequence[Accelerator]) -> list[_Visible]:
    """Uuids may be shortened as long as only one card fits."""
    seen: list[int] = []
    for token in tokens:
        if not re.match(r"(GPU|MIG)-", token):
            # Numbers may not be mixed in; what CUDA does then is not written anywhere.
            return [True if position in seen else None for position in range(len(cards))]
        found = _named(token, cards)
        if found is None:
            return [None] * len(cards)
        if len(found) != 1:
            break
        if found[0] in seen:
            return [False] * len(cards)
        seen.append(found[0])
        if token.startswith("MIG-"):
            break
    return [position in seen for position in range(len(cards))]


def _named(token: str, cards: Sequence[Accelerator]) -> list[int] | None:
    """The positions of the cards that a uuid names, or `None` where a card's uuids are not known."""
    # The older name of an instance: MIG-GPU-<card's uuid>/<gpu instance>/<compute instance>.
    old = re.fullmatch(r"MIG-(GPU-[^/]+)/[0-9]+/[0-9]+", token)
    if token.startswith("GPU-") or old:
        wanted = old[1] if old else token
        known = [[card.uuid] for card in cards]
    else:
        wanted = token
        known = [
            [one.uuid for one in card.mig] or ([] if card.mig_enabled is False else [None]) for card in cards
        ]
    found = [
        position
        for position, uuids in enumerate(known)
        if any((uuid or "").startswith(wanted) for uuid in uuids)
    ]
    unknown = any(uuid is None for uuids in known for uuid in uuids)
    return None if unknown and len(found) != 1 else found
