"""What follows from the hardware for a model on this machine, with sources."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from stackconf import Because, because, compute_threads, size_text
from stackconf_models import Device, devices

if TYPE_CHECKING:
    from stackconf import Hardware

MIB, GIB = 1024**2, 1024**3
DEVICES = r"^([1-9][0-9]{0,3})x(?:([0-9]{1,15})(MiB|B)|\?)( shared)?( MIG)?$"
"""So many of so much memory that may be used; `shared` where that is a part of it, `MIG` for instances."""

# Each threshold is one GiB below the label on the card, because drivers report less than the label.
CONTEXT_BY_VRAM = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4_096))

KV_BYTES_PER_TOKEN = 32 * 8 * 128 * 2 * 2
"""Key and value of one token in a model of the 8-billion class: 32 layers, 8 KV heads of 128,
two tensors, 16-bit: 131 072 bytes. Smaller models need less."""

STEPS_FROM, FOUR_FROM = (0, 15, 5), (0, 6, 7)

CPU_CONTEXT_SHARE = 8
CPU_CONTEXT_LEAST, CPU_CONTEXT_MOST = 2_048, 32_768


def facts(hardware: Hardware) -> dict[str, Because[object]]:
    """What a model on this machine is sized by: its devices, its main memory, and threads.

    Without `devices` it is not known whether there are any. What is free at the moment is left out: a
    plan must not depend on it.

    >>> from stackconf import simulate
    >>> facts(simulate("l4:2"))["devices"].reason
    '2 x NVIDIA L4, 22.5 GiB'
    >>> facts(simulate("l4:2"))["devices"].value
    ['2x23034MiB']
    """
    found: dict[str, Because[object]] = {}
    units = _units(hardware)
    if units is not None:
        found["devices"] = units
    usable = hardware.memory.usable_bytes
    if usable is not None:
        found["memory_bytes"] = because(usable, f"{size_text(usable)} usable main memory")
    best = threads(hardware)
    if best is not None:
        found["num_thread"] = because(best.value, best.reason)
    return found


def _units(hardware: Hardware) -> Because[object] | None:
    found = devices(hardware)
    if not found and not hardware.accelerators and not hardware.certainly_no_accelerator:
        return None
    counts = Counter((each.name, each.memory_bytes, each.share, each.part_of_card) for each in found)
    texts, told = [], []
    for (name, memory, share, part), count in counts.items():
        amount = "?" if memory is None else f"{memory // MIB}MiB"
        texts.append(f"{count}x{amount}{' shared' * (share < 1)}{' MIG' * part}")
        own = "" if share >= 1 else f", {share:.4g} of each"
        size = "of unknown memory" if memory is None else size_text(memory)
        told.append(f"{count} x {name or 'a card'}, {size}{own}")
    nothing = "no accelerator is visible to this process" if hardware.accelerators else "no accelerator"
    return because(texts, "; ".join(told) or nothing)


def as_devices(texts: Iterable[str]) -> list[Device]:
    """The devices that such texts say.

    >>> [card.memory_bytes for card in as_devices(["2x46068MiB", "1x? MIG"])]
    [48305799168, 48305799168, None]
    """
    found: list[Device] = []
    for text in texts:
        match = re.fullmatch(DEVICES, text)
        if match is None:
            raise ValueError(f"{text[:100]!r} says nothing of devices; write it like 2x46068MiB")
        count, amount, unit, shared, part = match.groups()
        memory = None if amount is None else int(amount) * (MIB if unit == "MiB" else 1)
        device = Device(None, memory, part_of_card=bool(part), share=0.5 if shared else 1.0)
        found += [device] * int(count)
    return found


def usual_context(
    cards: Sequence[Device], memory_bytes: int | None, engine_version: str | None = None
) -> Because[int] | None:
    """`num_ctx` from the sum of the visible accelerators' memory, or from main memory without any.

    With accelerators what the server does by itself, so that a model is loaded no larger than it would
    be without stackconf. From 0.15.5 on, and where the version is not known: 262 144 tokens from 47 GiB
    on, 32 768 from 23 GiB on, otherwise 4 096 (https://github.com/ollama/ollama/pull/13946); from 0.6.7
    on 4 096 (https://github.com/ollama/ollama/releases/tag/v0.6.7), before that 2 048. Where some card's
    memory is unknown, the rest is a lower bound, used only if it already reaches a threshold.

    Without accelerators: the largest power of two whose KV cache takes at most 1/8 of the usable
    memory at 128 KiB per token, between 2 048 and 32 768 tokens. Source of the size per token:
    2 x layers x KV heads x head size x 2 bytes, as in Ollama's `PredictServerVRAM`.

    >>> usual_context([Device("NVIDIA L4", 23034 * 1024**2)], None, "0.6.7")
    Because(value=4096, reason="Ollama's default from 0.6.7 to 0.15.4")
    """
    if cards:
        version = _version(engine_version)
        if version is None or version >= STEPS_FROM:
            return _by_vram(cards)
        if version >= FOUR_FROM:
            return because(4096, "Ollama's default from 0.6.7 to 0.15.4")
        return because(2048, "Ollama's default before 0.6.7")
    if memory_bytes is None:
        return None
    tokens = memory_bytes // CPU_CONTEXT_SHARE // KV_BYTES_PER_TOKEN
    fitting = 1 << max(tokens, 1).bit_length() - 1
    value = min(max(fitting, CPU_CONTEXT_LEAST), CPU_CONTEXT_MOST)
    return because(value, f"no usable accelerator; {_cache_text(value, fitting, memory_bytes)}")


def _version(text: str | None) -> tuple[int, ...] | None:
    match = re.match(r"v?(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", text or "")
    return tuple(int(part or 0) for part in match.groups()) if match else None


def _cache_text(value: int, fitting: int, usable: int) -> str:
    cache = f"{value} tokens at 128 KiB each take {size_text(value * KV_BYTES_PER_TOKEN)}"
    share = f"1/{CPU_CONTEXT_SHARE} of {size_text(usable)} usable memory"
    if fitting == value:
        return f"{cache}, the largest power of two within {share}"
    if fitting > value:
        return f"{cache}, the most that is set; {share} would hold more"
    return f"{cache}, the least that is set; {share} would hold less"


def threads(hardware: Hardware) -> Because[int] | None:
    """`num_thread`: one per usable physical core.

    Ollama does not see a CPU quota (https://github.com/ollama/ollama/issues/17916): 8 threads on a
    4-CPU quota ran at 0.27 tokens/s, 4 threads at 12.07.
    """
    return compute_threads(hardware)


def _by_vram(cards: Sequence[Device]) -> Because[int] | None:
    sizes = [card.memory_bytes for card in cards]
    known = sum(size for size in sizes if size is not None)
    unknown = sum(size is None for size in sizes)
    threshold, value = next((least, tokens) for least, tokens in CONTEXT_BY_VRAM if known >= least)
    if unknown and threshold == 0:
        return None
    plural = "s" if len(cards) > 1 else ""
    amount = f"{known / GIB:.1f} GiB on {len(cards)} visible accelerator{plural}"
    if unknown:
        amount = f"at least {amount} ({unknown} of unknown size)"
    step = f"at least {threshold // GIB} GiB" if threshold else f"below {CONTEXT_BY_VRAM[-2][0] // GIB} GiB"
    return because(value, f"{amount}: Ollama's step for {step}")
