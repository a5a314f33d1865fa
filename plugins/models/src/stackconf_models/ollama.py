"""What an Ollama server does by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stackconf import Because, because, size_text

if TYPE_CHECKING:
    from stackconf_models.devices import Device
    from stackconf_models.shape import ModelShape

GIB = 1024**3
CONTEXT_BY_MEMORY = ((47 * GIB, 262_144), (23 * GIB, 32_768), (0, 4_096))
"""Each threshold is 1 GiB below the label on the card, on purpose: drivers report less."""


def ollama_context(cards: Sequence[Device]) -> Because[int | None]:
    """`num_ctx` by the sum of the devices' memory: 262144 from 47 GiB on, 32768 from 23, else 4096.

    Where a device's memory is unknown, the others decide only if they reach a threshold alone. With
    no device at all it is 4096. Source: https://github.com/ollama/ollama/pull/13946.

    >>> from stackconf_models import Device
    >>> ollama_context([Device("NVIDIA L4", 23034 * 1024**2)]).value
    4096
    >>> ollama_context([Device("NVIDIA L4", 23034 * 1024**2)] * 2)
    Because(value=32768, reason='45 GiB on 2 devices reach the 23 GiB for 32768 tokens')
    """
    known = sum(card.memory_bytes or 0 for card in cards)
    step, tokens = next(pair for pair in CONTEXT_BY_MEMORY if known >= pair[0])
    unknown = [card for card in cards if card.memory_bytes is None]
    if unknown and step != CONTEXT_BY_MEMORY[0][0]:
        return because(None, f"the memory of {unknown[0]} is unknown")
    count = "1 device" if len(cards) == 1 else f"{len(cards)} devices"
    have = f"{size_text(known)} on {count}"
    if step:
        return because(tokens, f"{have} reach the {size_text(step)} for {tokens} tokens")
    return because(tokens, f"{have}, less than {size_text(CONTEXT_BY_MEMORY[1][0])}")


def ollama_prediction(shape: ModelShape, context: int) -> Because[int | None]:
    """Bytes that Ollama expects a model to take: its file and the KV cache of the context.

    File size + 2 x layers x KV heads x head length x context x 2 bytes, whatever the attention.
    Source: Ollama `PredictServerVRAM`.
    """
    file, layers, heads, length = shape.weight_bytes, shape.layers, shape.kv_heads, shape.head_dim
    if file is None or layers is None or heads is None or length is None:
        return because(None, f"the file, layers or heads of {shape.name} are unknown")
    cache = 2 * layers * heads * length * context * 2
    return because(file + cache, f"{size_text(file)} file and {size_text(cache)} for {context} tokens")
