"""What is derived where, on simulated machines: every figure of `embeddings.txt` was checked by hand.

Run as a program, this file writes `embeddings.txt` anew.
"""

from __future__ import annotations

from pathlib import Path

from stackconf import Because, simulate
from stackconf_sentence_transformers import plugin
from stackconf_sentence_transformers.config import SentenceTransformersConfig

EMBEDDINGS = Path(__file__).with_name("embeddings.txt")
MACHINES = (
    "cpu=4,memory=8GiB",
    "cpu=16,memory=64GiB,quota=3",
    "t4,cpu=8,memory=32GiB",
    "l4,cpu=8,memory=32GiB",
    "l40s:2,cpu=32,memory=256GiB",
    "a100-40gb-sxm:4,cpu=64,memory=512GiB",
    "h100-80gb-sxm:8,cpu=96,memory=1TiB",
    "gb10,cpu=20,memory=119GiB",
)
MODELS = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "nomic-ai/nomic-embed-text-v1.5",
    "BAAI/bge-large-en-v1.5",
    "Qwen/Qwen3-Embedding-0.6B",
    "Qwen/Qwen3-Embedding-8B",
)
FIELDS = ("device", "dtype", "max_seq_length", "batch_size", "device_memory_bytes")


def on(hardware, **config):
    """The configuration on a machine, with what the hook gives."""
    given = plugin.default_config(hardware=hardware) or {}
    values = {name: each.value if isinstance(each, Because) else each for name, each in given.items()}
    return SentenceTransformersConfig(**{**values, **config})


def table() -> str:
    lines = []
    for machine in MACHINES:
        hardware = simulate(machine)
        lines.append(f"== {machine}: {on(hardware).threads} threads")
        for name in MODELS:
            config = on(hardware, model=name, trust_remote_code=False)
            lines.append(f"{name}: {', '.join(f'{field} {getattr(config, field)}' for field in FIELDS)}")
            reasons = config.stackconf_reasons
            lines += [f"    {field}: {reasons[field]}" for field in FIELDS if field in reasons]
            if config.told.problem:
                lines += [f"    ! {config.told.problem}; {config.told.advice}"]
    return "\n".join(lines) + "\n"


def test_what_is_derived_where_is_as_it_was_checked(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert table() == EMBEDDINGS.read_text(encoding="utf-8")


if __name__ == "__main__":
    EMBEDDINGS.write_text(table(), encoding="utf-8")
