"""What is known of a model by what Ollama calls it: its shape, and what its weights take.

From the file that Ollama itself would load, where that can be read; otherwise from a table of
well-known models and the quantisation that the tag names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from attrs import evolve

from stackconf import Because, because, size_text
from stackconf_models import (
    ModelShape,
    ModelUnreadable,
    Quantisation,
    known_model,
    parameters,
    read_gguf,
    weight_bytes,
)

BITS: Mapping[str, float] = {
    "F16": 16.0005,
    "Q8_0": 8.5008,
    "Q6_K": 6.5633,
    "Q5_K_M": 5.7036,
    "Q4_K_M": 4.8944,
    "Q4_0": 4.64,
    "Q3_K_M": 3.9960,
    "Q2_K": 3.1593,
}
"""Bits of one weight, over a whole Llama 3 8B. Source: llama.cpp `tools/quantize/README.md`; of Q4_0
`llama-quantize --help` (4.34 GiB)."""

_QWEN = ("1.5b", "7b", "14b", "32b")
LIBRARY: Mapping[str, tuple[str, Mapping[str, str], str]] = {
    "llama3.1": ("8b", {"8b": "Llama-3.1-8B-Instruct", "70b": "Llama-3.1-70B-Instruct"}, "Q4_K_M"),
    "llama3.2": ("3b", {"1b": "Llama-3.2-1B-Instruct", "3b": "Llama-3.2-3B-Instruct"}, "Q4_K_M"),
    "llama3.3": ("70b", {"70b": "Llama-3.3-70B-Instruct"}, "Q4_K_M"),
    "qwen2.5": ("7b", {size: f"Qwen2.5-{size.upper()}-Instruct" for size in _QWEN}, "Q4_K_M"),
    "gemma2": ("9b", {size: f"gemma-2-{size}-it" for size in ("9b", "27b")}, "Q4_0"),
    "mistral": ("7b", {"7b": "Mistral-7B-Instruct-v0.3"}, "Q4_K_M"),
    "mixtral": ("8x7b", {"8x7b": "Mixtral-8x7B-Instruct-v0.1"}, "Q4_0"),
}
"""Models of Ollama's library: the size without a tag, the published model of each size, and how it is
quantised unless the tag says. Left out are those whose file differs from the estimate by more than 5 %.
Source: https://ollama.com/library"""
OTHERWISE: Mapping[str, str] = {"llama3.2:1b": "Q8_0"}
"""Sizes that the library stores otherwise than its others."""
FOLDERS = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/models")
"""Where services keep their models. Source: Ollama's `scripts/install.sh`; distributions' packages."""
_MODEL_LAYER = "application/vnd.ollama.image.model"
_LARGEST_MANIFEST = 1024**2
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")


def find_model(
    model: str, folder: str | None = None, environ: Mapping[str, str] | None = None
) -> Because[ModelShape | None]:
    """The shape of a model with the bytes of its weights, or why it is unknown. Downloads nothing.

    `folder` is where the server keeps its models; without it, where servers usually do.

    >>> found = find_model("llama3.1:8b", environ={"HOME": "/nowhere"})
    >>> found.reason
    'Llama-3.1-8B-Instruct, 4.6 GiB: 8.03 billion weights of 4.8944 bits (Q4_K_M)'
    >>> find_model("acme", environ={"HOME": "/nowhere"}).reason
    'the shape of acme is unknown: no file of it can be read here, and it is no well-known model'
    """
    parts = _parts(model)
    if parts is None:
        return because(None, f"{model[:100]!r} is no name of a model")
    for place in _folders(folder, os.environ if environ is None else environ):
        found = _stored(place, parts)
        if found is not None:
            return found
    return _known(model, parts)


def _parts(model: str) -> tuple[str, str, str, str] | None:
    """Host, namespace, name and tag, as Ollama fills them in. Source: `types/model/name.go`.

    >>> _parts("llama3.2"), _parts("hf.co/acme/tiny:Q8_0")
    (('registry.ollama.ai', 'library', 'llama3.2', 'latest'), ('hf.co', 'acme', 'tiny', 'Q8_0'))
    """
    path, _, tag = model.rpartition(":") if ":" in model.rpartition("/")[2] else (model, "", "latest")
    names = ["registry.ollama.ai", "library"][: max(0, 3 - path.count("/") - 1)] + path.split("/")
    if len(names) != 3 or not all(map(_PART.fullmatch, (names[0].replace(":", "_"), *names[1:], tag))):  # noqa: PLR2004
        return None
    return names[0], names[1], names[2], tag


def _folders(given: str | None, environ: Mapping[str, str]) -> Iterator[Path]:
    if given is not None:
        yield Path(given)
        return
    if environ.get("OLLAMA_MODELS"):
        yield Path(environ["OLLAMA_MODELS"])
    if environ.get("HOME"):
        yield Path(environ["HOME"], ".ollama", "models")
    yield from map(Path, FOLDERS)


def _stored(folder: Path, parts: tuple[str, str, str, str]) -> Because[ModelShape | None] | None:
    """From the server's own files: a manifest names the blob that is the GGUF file."""
    try:
        manifest = Path(folder, "manifests", *parts)
        if not manifest.is_file() or manifest.stat().st_size > _LARGEST_MANIFEST:
            return None
        digest = _digest(json.loads(manifest.read_text(encoding="utf-8")))
        if digest is None:
            return None
        blob = folder / "blobs" / f"sha256-{digest}"
        facts = blob.stat()
        shape = _header(blob, facts.st_mtime_ns, facts.st_size)
    except (OSError, ValueError, RecursionError, ModelUnreadable):
        # Often another user's files: then the table has to do.
        return None
    name = f"{parts[2]}:{parts[3]}"
    return because(
        evolve(shape, name=name), f"{name}, {size_text(shape.weight_bytes or 0)}, from {shape.source}"
    )


def _digest(manifest: object) -> str | None:
    layers = manifest.get("layers") if isinstance(manifest, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and layer.get("mediaType") == _MODEL_LAYER:
            match = _DIGEST.fullmatch(str(layer.get("digest")))
            return match[1] if match else None
    return None


@lru_cache(maxsize=8)
def _header(blob: Path, _modified: int, _size: int) -> ModelShape:
    """A header has a vocabulary of megabytes; a file is read again only when it changed."""
    return read_gguf(blob)


def _known(model: str, parts: tuple[str, str, str, str]) -> Because[ModelShape | None]:
    entry = LIBRARY.get(parts[2]) if parts[:2] == ("registry.ollama.ai", "library") else None
    size, quantisation = _tag(parts[2], parts[3], entry) if entry else ("", "")
    shape = known_model(entry[1][size]) if entry and size in entry[1] else None
    if shape is None:
        why = "no file of it can be read here, and it is no well-known model"
        return because(None, f"the shape of {model[:200]} is unknown: {why}")
    if quantisation not in BITS:
        return because(None, f"what {quantisation} weights of {model[:200]} take is not known here")
    return _weighed(shape, quantisation)


def _tag(name: str, tag: str, entry: tuple[str, Mapping[str, str], str]) -> tuple[str, str]:
    """The size and the quantisation that a tag says, such as `8b-instruct-q8_0`."""
    size = entry[0] if tag == "latest" else tag.partition("-")[0].lower()
    usual = OTHERWISE.get(f"{name}:{size}", entry[2])
    match = re.search(r"-(i?q\d\w*|fp16|f16|bf16)$", tag, re.IGNORECASE)
    named = match[1].upper() if match else usual
    return size, "F16" if named in {"FP16", "BF16"} else named


def _weighed(shape: ModelShape, quantisation: str) -> Because[ModelShape | None]:
    bits, count = BITS[quantisation], parameters(shape)
    stored = Quantisation("gguf", bits, None, quantisation)
    total = weight_bytes(shape, quantisation=stored)
    name = shape.name.rpartition("/")[2]
    if total.value is None or count.value is None:
        return because(None, f"the number of weights of {name} is unknown")
    told = f"{name}, {size_text(total.value)}: {count.value / 1e9:.2f} billion weights of {bits:g} bits"
    return because(
        evolve(shape, name=name, weight_bytes=total.value, layer_bytes=None, quantisation=stored),
        f"{told} ({quantisation})",
    )


def in_fewer_bits(shape: ModelShape) -> Iterator[tuple[str, ModelShape]]:
    """The same model in each smaller quantisation, the largest first."""
    count, have = parameters(shape).value, shape.weight_bytes
    if count is None or have is None:
        return
    for name, bits in BITS.items():
        total = int(count * bits / 8)
        if total < have * 0.95:
            yield name, evolve(shape, weight_bytes=total, layer_bytes=None)
