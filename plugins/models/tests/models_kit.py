"""Model files made to order: a GGUF writer and the folders of Hugging Face's layout."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

MIB = 1024**2
GIB = 1024**3

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rope_scaling": {"factor": 8.0, "original_max_position_embeddings": 8192, "rope_type": "llama3"},
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}


def folder(path: Path, config: Any = None, *, total_size: int | None = None, **changes: Any) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    content = {**LLAMA_8B, **changes} if config is None else config
    (path / "config.json").write_text(json.dumps(content), encoding="utf-8")
    if total_size is not None:
        index = {"metadata": {"total_size": total_size}, "weight_map": {}}
        (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return path


def safetensors(path: Path, size: int) -> None:
    header = b'{"w":{}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * size)


KINDS = {int: 10, float: 6, bool: 7, str: 8}


def gguf(
    path: Path,
    entries: dict[str, Any],
    tensors: dict[str, tuple[tuple[int, ...], int]],
    *,
    version: int = 3,
    order: str = "<",
    data: int | None = None,
) -> Path:
    """A GGUF file; `tensors` are name: (dimensions, type). `data`: bytes of tensors really written."""
    out = bytearray(b"GGUF" + struct.pack(f"{order}IQQ", version, len(tensors), len(entries)))

    def text(value: str) -> bytes:
        return struct.pack(f"{order}Q", len(value.encode())) + value.encode()

    def plain(value: Any) -> bytes:
        if isinstance(value, str):
            return text(value)
        if isinstance(value, bool):
            return struct.pack("?", value)
        return struct.pack(order + ("Q" if isinstance(value, int) else "f"), value)

    for key, value in entries.items():
        out += text(key)
        if isinstance(value, list):
            out += struct.pack(f"{order}IIQ", 9, KINDS[type(value[0])], len(value))
            out += b"".join(map(plain, value))
        else:
            out += struct.pack(f"{order}I", KINDS[type(value)]) + plain(value)
    offset = 0
    for name, (dimensions, kind) in tensors.items():
        out += text(name) + struct.pack(f"{order}I", len(dimensions))
        out += struct.pack(f"{order}{len(dimensions)}Q", *dimensions) + struct.pack(
            f"{order}IQ", kind, offset
        )
        offset += tensor_bytes(dimensions, kind)
        offset = -(-offset // 32) * 32
    out += b"\0" * (-len(out) % 32)
    path.write_bytes(bytes(out) + b"\0" * (offset if data is None else data))
    return path


BLOCKS = {0: (1, 4), 1: (1, 2), 8: (32, 34), 12: (256, 144), 14: (256, 210)}


def tensor_bytes(dimensions: tuple[int, ...], kind: int) -> int:
    values = 1
    for dimension in dimensions:
        values *= dimension
    block, size = BLOCKS[kind]
    return -(-values // block) * size


TINY = {
    "general.architecture": "llama",
    "general.name": "Tiny",
    "general.file_type": 15,
    "llama.block_count": 2,
    "llama.context_length": 8192,
    "llama.embedding_length": 256,
    "llama.feed_forward_length": 512,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
TINY_TENSORS = {
    "token_embd.weight": ((256, 3), 0),
    "blk.0.attn_q.weight": ((256, 256), 12),
    "blk.0.ffn_up.weight": ((256, 512), 14),
    "blk.1.attn_q.weight": ((256, 256), 12),
    "output.weight": ((256, 3), 14),
}
