"""GGUF files made to order: small ones that a real llama-server loads, and large ones that are holes."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

F32, F16, Q4_K, Q6_K = 0, 1, 12, 14
BLOCKS = {F32: (1, 4), F16: (1, 2), Q4_K: (256, 144), Q6_K: (256, 210)}
KINDS = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}
STRING, ARRAY, SIGNED = 8, 9, (5, "i")


def tensor_bytes(dimensions: tuple[int, ...], kind: int) -> int:
    values = 1
    for dimension in dimensions:
        values *= dimension
    block, size = BLOCKS[kind]
    return -(-values // block) * size


def write(path: Path, entries: dict[str, Any], tensors: dict[str, tuple[tuple[int, ...], int]]) -> Path:
    """A GGUF file, version 3. All its weights are zero, and the file is a hole where they are."""
    out = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)))

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def plain(value: Any, kind: tuple[int, str] | None = None) -> bytes:
        return (
            text(value)
            if isinstance(value, str)
            else struct.pack("<" + (kind or KINDS[type(value)])[1], value)
        )

    for key, value in entries.items():
        out += text(key)
        if isinstance(value, list):
            kind = (
                (STRING, "")
                if isinstance(value[0], str)
                else SIGNED
                if isinstance(value[0], int)
                else KINDS[float]
            )
            out += struct.pack("<IIQ", ARRAY, kind[0], len(value))
            out += b"".join(plain(each, kind) for each in value)
        else:
            out += struct.pack("<I", STRING if isinstance(value, str) else KINDS[type(value)][0]) + plain(
                value
            )
    offset = 0
    for name, (dimensions, kind) in tensors.items():
        out += text(name) + struct.pack("<I", len(dimensions))
        out += struct.pack(f"<{len(dimensions)}Q", *dimensions) + struct.pack("<IQ", kind, offset)
        offset = -(-(offset + tensor_bytes(dimensions, kind)) // 32) * 32
    out += b"\0" * (-len(out) % 32)
    with path.open("wb") as file:
        file.write(out)
        file.truncate(len(out) + offset)
    return path


def llama(  # noqa: PLR0913 (a model's sizes)
    path: Path,
    *,
    layers: int = 2,
    width: int = 256,
    wide: int = 512,
    heads: int = 8,
    kv_heads: int = 2,
    words: int = 1024,
    context: int = 8192,
    kind: int = Q4_K,
    more: int = Q6_K,
) -> Path:
    """A model of llama's architecture with a tokeniser of its own. The output layer is of type `more`."""
    size = width // heads
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [f"▁w{number}" for number in range(words - len(pieces))]
    entries: dict[str, Any] = {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "general.file_type": 15,
        "llama.block_count": layers,
        "llama.context_length": context,
        "llama.embedding_length": width,
        "llama.feed_forward_length": wide,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": size,
        "llama.vocab_size": words,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": [0.0] * words,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * (words - 259),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    tensors: dict[str, tuple[tuple[int, ...], int]] = {
        "token_embd.weight": ((width, words), kind),
        "output_norm.weight": ((width,), F32),
        "output.weight": ((width, words), more),
    }
    for layer in range(layers):
        prefix = f"blk.{layer}"
        tensors |= {
            f"{prefix}.attn_norm.weight": ((width,), F32),
            f"{prefix}.attn_q.weight": ((width, width), kind),
            f"{prefix}.attn_k.weight": ((width, kv_heads * size), kind),
            f"{prefix}.attn_v.weight": ((width, kv_heads * size), kind),
            f"{prefix}.attn_output.weight": ((width, width), kind),
            f"{prefix}.ffn_norm.weight": ((width,), F32),
            f"{prefix}.ffn_gate.weight": ((width, wide), kind),
            f"{prefix}.ffn_up.weight": ((width, wide), kind),
            f"{prefix}.ffn_down.weight": ((wide, width), kind),
        }
    return write(path, entries, tensors)


def lora(path: Path, *, width: int = 256, rank: int = 4) -> Path:
    """An adapter for the first layer's queries of a model from `llama`."""
    entries = {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }
    sizes = {"lora_a": (width, rank), "lora_b": (rank, width)}
    return write(path, entries, {f"blk.0.attn_q.weight.{name}": (size, F32) for name, size in sizes.items()})
