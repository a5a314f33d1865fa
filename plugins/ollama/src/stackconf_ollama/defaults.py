"""What follows from the hardware for a model on this machine, with sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import because, compute_threads, size_text

if TYPE_CHECKING:
    from stackconf import Accelerator, Hardware
    from stackconf.types import Because

GIB = 1024**3

# Each threshold is one GiB below the label on the card, because drivers report less than the label.
CONTEXT_BY_VRAM = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4_096))

KV_BYTES_PER_TOKEN = 32 * 8 * 128 * 2 * 2
"""Key and value of one token in a model of the 8-billion class: 32 layers, 8 KV heads of 128,
two tensors, 16-bit: 131 072 bytes. Smaller models need less."""

CPU_CONTEXT_SHARE = 8
CPU_CONTEXT_LEAST, CPU_CONTEXT_MOST = 2_048, 32_768


def context_length(hardware: Hardware) -> Because[int] | None:
    """`num_ctx` from the sum of the visible accelerators' memory, or from main memory without any.

    With accelerators: 262 144 tokens from 47 GiB on, 32 768 from 23 GiB on, otherwise 4 096.
    Source: what a server from 0.15.5 on does by itself, https://github.com/ollama/ollama/pull/13946;
    so a model is loaded no larger than it would be without stackconf. With a large model these
    contexts may spill into main memory (https://github.com/ollama/ollama/issues/14116): set less
    then. Where some card's memory is unknown, the rest is a lower bound, used only if it already
    reaches a threshold.

    Without accelerators: the largest power of two whose KV cache takes at most 1/8 of the usable
    memory at 128 KiB per token, between 2 048 and 32 768 tokens. Source of the size per token:
    2 x layers x KV heads x head size x 2 bytes, as in Ollama's `PredictServerVRAM`.

    >>> from stackconf.testing import machine
    >>> context_length(machine(memory_gib=16)).value
    16384
    """
    cards = hardware.visible_accelerators
    if cards:
        return _by_vram(cards)
    if not (hardware.accelerators or hardware.certainly_no_accelerator):
        return None
    usable = hardware.memory.usable_bytes
    if usable is None:
        return None
    tokens = usable // CPU_CONTEXT_SHARE // KV_BYTES_PER_TOKEN
    fitting = 1 << max(tokens, 1).bit_length() - 1
    value = min(max(fitting, CPU_CONTEXT_LEAST), CPU_CONTEXT_MOST)
    return because(value, f"no usable accelerator; {_cache_text(value, fitting, usable)}")


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


def _by_vram(cards: tuple[Accelerator, ...]) -> Because[int] | None:
    sizes = [_memory_of(card) for card in cards]
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


def _memory_of(card: Accelerator) -> int | None:
    """What can be used of a card: its MIG instances where it is cut into such, else all of it."""
    if not card.mig_enabled:
        return card.memory_bytes
    sizes = [instance.memory_bytes for instance in card.mig]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None
