"""What lies between NVIDIA's cards, asked of NVML pair by pair.

Sources: the NVML API reference, `nvmlDeviceGetP2PStatus`, `nvmlDeviceGetTopologyCommonAncestor` and
`nvmlDeviceGetNvLinkState`; the MIG user guide for cards that are cut up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

from attrs import evolve

from stackconf.hardware.facts import Accelerator, Peer
from stackconf.hardware.nvml import INVALID_ARGUMENT, NOT_SUPPORTED, Nvml

READ, NVLINK = 0, 2
"""What `nvmlDeviceGetP2PStatus` is asked about. pynvml's own constant for the first is a tuple."""

STATUS_OK, STATUS_UNKNOWN = 0, 6
"""Every number between says why it is not possible."""

PATHS: Mapping[int, Literal["board", "switch", "switches", "root", "node", "system"]] = {
    0: "board",
    10: "switch",
    20: "switches",
    30: "root",
    40: "node",
    50: "system",
}

Known = tuple[int, Any, Accelerator]
"""A card's number, NVML's handle to it (`None` where NVML gave none), and what is known of it."""


def with_links(nvml: Nvml, cards: Sequence[Known]) -> list[Accelerator]:
    """The cards with `nvlinks`, `nvlink_peers` and `peers`. Each pair is asked once.

    A card that is cut up (MIG) reaches no other: neither over NVLink nor over PCIe.
    """
    between: dict[tuple[int, int], Peer] = {}
    for (one, first, known), (other, second, its) in combinations(cards, 2):
        peer = _between(nvml, one, first, second, cut=bool(known.mig_enabled or its.mig_enabled))
        between[one, other] = evolve(peer, index=other)
        between[other, one] = evolve(peer, index=one)
    return [
        _linked(nvml, handle, known, [peer for (one, _), peer in between.items() if one == index])
        for index, handle, known in cards
    ]


def _linked(nvml: Nvml, handle: Any, card: Accelerator, peers: list[Peer]) -> Accelerator:
    certain = all(peer.link is not None for peer in peers)
    return evolve(
        card,
        nvlinks=None if handle is None else _links(nvml, handle, card),
        nvlink_peers=tuple(sorted(peer.index for peer in peers if peer.link == "nvlink"))
        if certain
        else None,
        peers=tuple(sorted(peers, key=lambda peer: peer.index)),
    )


def _between(nvml: Nvml, card: int, first: Any, second: Any, *, cut: bool) -> Peer:
    if first is None or second is None:
        return Peer(card)
    path, code = nvml.result("nvmlDeviceGetTopologyCommonAncestor", first, second)
    if code is not None:
        nvml.failed("peers", card, "nvmlDeviceGetTopologyCommonAncestor", code)
    if cut:
        return Peer(card, "pcie", PATHS.get(path), direct=False)
    linked = _possible(nvml, card, first, second, NVLINK)
    link: Literal["nvlink", "pcie"] | None = None if linked is None else "nvlink" if linked else "pcie"
    return Peer(card, link, PATHS.get(path), _possible(nvml, card, first, second, READ))


def _possible(nvml: Nvml, card: int, first: Any, second: Any, what: int) -> bool | None:
    call = "nvmlDeviceGetP2PStatus"
    status, code = nvml.result(call, first, second, what)
    if code == NOT_SUPPORTED:
        return False
    if code is not None:
        nvml.failed("nvlink_peers" if what == NVLINK else "peers", card, call, code)
        return None
    if status == STATUS_UNKNOWN:
        nvml.note("nvlink_peers" if what == NVLINK else "peers", card, "unsupported", f"{call} does not know")
        return None
    return bool(status == STATUS_OK)


def _links(nvml: Nvml, handle: Any, card: Accelerator) -> int | None:
    """How many links are up. Numbers beyond a card's last one are invalid arguments."""
    up = 0
    for number in range(int(getattr(nvml.library, "NVML_NVLINK_MAX_LINKS", 18))):
        state, code = nvml.result("nvmlDeviceGetNvLinkState", handle, number)
        if code in {INVALID_ARGUMENT, NOT_SUPPORTED}:
            break
        if code is not None:
            nvml.failed("nvlinks", card.index, "nvmlDeviceGetNvLinkState", code)
            return None
        up += bool(state)
    return up
