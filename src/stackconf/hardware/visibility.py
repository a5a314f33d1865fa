"""Which cards CUDA_VISIBLE_DEVICES lets this process see; NVML does not heed it.

Source: the CUDA C++ programming guide, "CUDA environment variables".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve, frozen

from stackconf.hardware.facts import Visibility

if TYPE_CHECKING:
    from stackconf.hardware.facts import Accelerator, MigInstance

VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
)
"""NVIDIA_VISIBLE_DEVICES has already been acted on when a container starts: evidence, no filter."""

_Visible: TypeAlias = bool | None


def variables(environment: Mapping[str, str]) -> list[Visibility]:
    """Those of `VARIABLES` that are set."""
    return [Visibility(name, environment[name]) for name in VARIABLES if name in environment]


@frozen
class _Sight:
    """What CUDA sees: for each card whether, and the visible ones in CUDA's own order."""

    visible: list[_Visible]
    order: list[int] | None = None
    """Positions of cards; `None` where their order is not certain."""
    instance: str | None = None
    """The name of the MIG instance that is asked for."""


def seen(value: str | None, order: str | None, cards: Sequence[Accelerator]) -> list[Accelerator]:
    """The cards with `visible` and `ordinal`, their instances with `visible`.

    >>> from stackconf.hardware.facts import Accelerator
    >>> pair = [Accelerator("nvidia", index=n, uuid=f"GPU-{n}a", pci_device_id="10de:2330",
    ...                     mig_enabled=False) for n in (0, 1)]
    >>> [(card.visible, card.ordinal) for card in seen("1,0", None, pair)]
    [(True, 1), (True, 0)]
    """
    sight = _sight(value, order, cards)
    return [
        evolve(
            card,
            visible=visible,
            ordinal=_ordinal(sight, position) if visible else None,
            mig=tuple(evolve(one, visible=_used(one, card, visible, sight)) for one in card.mig),
        )
        for position, (card, visible) in enumerate(zip(cards, sight.visible, strict=True))
    ]


def _ordinal(sight: _Sight, position: int) -> int | None:
    return sight.order.index(position) if sight.order is not None and position in sight.order else None


def _used(one: MigInstance, card: Accelerator, visible: _Visible, sight: _Sight) -> _Visible:
    """Whether CUDA uses that instance. Which it takes of several that nobody named is not written."""
    if visible is False:
        return False
    if sight.instance is not None and not sight.instance.startswith("MIG-GPU-"):
        return None if one.uuid is None else one.uuid.startswith(sight.instance)
    return visible if len(card.mig) == 1 else None


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
    return _sight(value, order, cards).visible


def _sight(value: str | None, order: str | None, cards: Sequence[Accelerator]) -> _Sight:
    if value is None:
        whole = all(card.mig_enabled is False for card in cards) or len(cards) == 1
        known = list(range(len(cards))) if whole and _same_order(order, cards) else None
        return _Sight([True] * len(cards), known)
    tokens = [token.strip() for token in value.split(",")]
    if re.match(r"(GPU|MIG)-", tokens[0]):
        return _by_uuid(tokens, cards)
    if re.fullmatch(r"[0-9]+", tokens[0], re.ASCII):
        return _by_number(tokens, order, cards)
    # CUDA's reader of numbers might take `0x1` or `gpu-1` for something; anything else names nothing.
    unsure = re.match(r"[0-9+]|gpu-|mig-", tokens[0], re.IGNORECASE)
    return _Sight([None if unsure else False] * len(cards))


def _same_order(order: str | None, cards: Sequence[Accelerator]) -> bool:
    """Whether CUDA counts as NVML does."""
    models = {card.pci_device_id for card in cards}
    return order == "PCI_BUS_ID" or len(cards) == 1 or (len(models) == 1 and None not in models)


def _by_number(tokens: Sequence[str], order: str | None, cards: Sequence[Accelerator]) -> _Sight:
    """Numbers mean cards for certain only where every card is known and none is cut up."""
    unsure = _Sight([None] * len(cards))
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
            return _Sight([False] * len(cards))
        taken.append(int(token))
    same = _same_order(order, cards)
    if not same and 0 < len(taken) < len(cards):
        return unsure
    return _Sight([position in taken for position in range(len(cards))], taken if same else None)


def _by_uuid(tokens: Sequence[str], cards: Sequence[Accelerator]) -> _Sight:
    """Uuids may be shortened as long as only one card fits."""
    taken: list[int] = []
    instance = None
    for token in tokens:
        if not re.match(r"(GPU|MIG)-", token):
            # Numbers may not be mixed in; what CUDA does then is not written anywhere.
            return _Sight([True if position in taken else None for position in range(len(cards))])
        found = _named(token, cards)
        if found is None:
            return _Sight([None] * len(cards))
        if len(found) != 1:
            break
        if found[0] in taken:
            return _Sight([False] * len(cards))
        taken.append(found[0])
        if token.startswith("MIG-"):
            instance = token
            break
    return _Sight([position in taken for position in range(len(cards))], taken, instance)


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
