"""What an embedding model is: its shape, and how long a text it takes.

Read from the files that sentence-transformers itself reads, or from a table of well-known models where
they are not on this machine. Nothing is downloaded, and no code of a model is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from attrs import evolve, field, frozen

from stackconf import Because, because
from stackconf_models import (
    FullAttention,
    ModelShape,
    ModelUnreadable,
    NoCache,
    cached_model,
    nearest_model,
    read_folder,
)
from stackconf_models.reading import open_regular, read_json, whole
from stackconf_models.shape import BYTES_PER_VALUE

ORGANISATION = "sentence-transformers"
"""Where a name without one is looked for, as `SentenceTransformer` does."""
_SETTINGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_ROBERTA = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta"})
"""Their first two positions are taken: 514 are 512 tokens. Source: `padding_idx` in transformers."""
_LENGTH = "max_seq_length"
_NO_LENGTH = 2**31
"""A tokenizer without a limit says 1e30."""


@frozen
class EmbeddingModel:
    """One model of embeddings. Lengths in tokens, `dimension` of one embedding."""

    shape: ModelShape
    max_seq_length: int | None = None
    """Longer texts are cut to it, by the model's own settings."""
    positions: int | None = None
    """The most that the model can be given at all."""
    prompts: Mapping[str, str] = field(factory=dict)
    """What the publisher says to put before a text, where the model's own files do not."""
    own_code: bool = False
    """Its files name code of its publisher."""
    source: str = ""

    @property
    def name(self) -> str:
        """As people know it."""
        return self.shape.name.rpartition("/")[2]


def find_embedding_model(
    model: str, environ: Mapping[str, str] | None = None
) -> Because[EmbeddingModel | None]:
    """An embedding model by its folder, or by its name on Hugging Face.

    A folder, Hugging Face's cache, or a well-known model, in this order. The value is `None` where it is
    in none of them or its files are bad; the reason then says what to do.

    >>> found = find_embedding_model("all-MiniLM-L6-v2", {"HF_HOME": "/nowhere"})
    >>> found.value.max_seq_length, found.reason
    (256, 'all-MiniLM-L6-v2: 6 layers of 384, texts of up to 256 tokens, from its files on Hugging Face')
    """
    try:
        found = _read(model.strip(), environ)
    except ModelUnreadable as error:
        return because(None, str(error))
    if found is None:
        from stackconf_sentence_transformers.known import known_embedding_models

        near = nearest_model(model, known_embedding_models())
        advice = f"did you mean {near}?" if near else "download it, or set model_path"
        where = "it is not on this machine, and no well-known model"
        return because(None, f"the shape of {model[:200]} is unknown: {where}; {advice}")
    length = "" if found.max_seq_length is None else f", texts of up to {found.max_seq_length} tokens"
    size = f"{found.shape.layers} layers of {found.shape.hidden_size}"
    return because(found, f"{found.name}: {size}{length}, from {found.source}")


def _read(model: str, environ: Mapping[str, str] | None) -> EmbeddingModel | None:
    folder = Path(model).expanduser() if model.startswith(("~", ".", "/")) else None
    if folder is not None:
        if not folder.is_dir():
            raise ModelUnreadable(f"{model[:200]}: there is no such folder")
        return read_embedding_folder(folder)
    for name in (model, f"{ORGANISATION}/{model}"):
        cached = cached_model(name, environ=environ)
        if cached is not None:
            return read_embedding_folder(cached, name)
    from stackconf_sentence_transformers.known import known_embedding_model

    return known_embedding_model(model)


def read_embedding_folder(folder: Path, name: str = "") -> EmbeddingModel:
    """A model in sentence-transformers' layout, or a plain one of transformers.

    `modules.json` says where the transformer's own files are; `sentence_bert_config.json` how long a text
    may be, otherwise the least of its positions and what its tokenizer says, as in
    `sentence_transformers` `Transformer`. Raises `ModelUnreadable`.
    """
    inner = folder / _first_module(folder)
    shape = evolve(read_folder(inner, name or folder.name), source=str(folder))
    config = read_json(inner / "config.json")
    positions = _positions(shape)
    return EmbeddingModel(
        shape,
        _own_length(inner, positions),
        positions,
        own_code=bool(config.get("auto_map")),
        source=str(folder),
    )


def _first_module(folder: Path) -> PurePosixPath:
    """The folder of the first module, which is the transformer; modules elsewhere are none of its files."""
    file = folder / "modules.json"
    if not file.is_file():
        return PurePosixPath()
    with open_regular(file) as opened:
        data = opened.read(_MODULES_BYTES)
    try:
        modules: Any = json.loads(data)
    except (RecursionError, ValueError):
        raise ModelUnreadable(f"{file}: is not JSON") from None
    first = modules[0] if isinstance(modules, list) and modules else None
    path = first.get("path") if isinstance(first, dict) else None
    if not isinstance(path, str):
        raise ModelUnreadable(f"{file}: does not say where the first module is")
    inner = PurePosixPath(path)
    if inner.is_absolute() or ".." in inner.parts or not path.isprintable():
        raise ModelUnreadable(f"{file}: its first module is outside the model's folder")
    return inner


_MODULES_BYTES = 64 * 1024


def _positions(shape: ModelShape) -> int | None:
    if shape.max_context is None or shape.architecture not in _ROBERTA:
        return shape.max_context
    return max(1, shape.max_context - 2)


def _own_length(folder: Path, positions: int | None) -> int | None:
    for name in _SETTINGS:
        if (folder / name).is_file():
            given = whole(read_json(folder / name), _LENGTH)
            if given is not None:
                return given
    tokenizer = folder / "tokenizer_config.json"
    limit = whole(read_json(tokenizer), "model_max_length") if tokenizer.is_file() else None
    known = [each for each in (limit, positions) if each is not None and each < _NO_LENGTH]
    return min(known, default=None)


# Memory

_GATED = frozenset(
    {"gemma", "gemma2", "gemma3", "gemma3_text", "llama", "mistral", "modernbert", "nomic_bert"}
) | {
    "qwen2",
    "qwen3",
}
_FUSED = _GATED | {"albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
"""Architectures whose attention transformers computes without writing the scores down (SDPA)."""
_HIDDEN = 6


def values_per_token(model: EmbeddingModel, length: int, *, own_code: bool = False) -> int | None:
    """Numbers that one token of a text of `length` takes while its batch is computed; `None` if unknown.

    2 x the feed-forward width (3 x where it is gated), 6 x the hidden size, 2 for the mask of each other
    token, or 2 for each head of each other token where the scores are written down; and keys and values
    for models that keep them. Source: peaks measured with torch 2.13 and transformers 5.17, see the README.

    >>> from stackconf_sentence_transformers.known import known_embedding_model
    >>> values_per_token(known_embedding_model("bge-base-en-v1.5"), 512)
    11776
    """
    shape = model.shape
    hidden, wide, heads = shape.hidden_size, shape.intermediate_size, shape.heads
    if hidden is None or heads is None:
        return None
    wide = wide or 4 * hidden
    fused = shape.architecture in _FUSED and not own_code
    computed = (3 if shape.architecture in _GATED else 2) * wide + _HIDDEN * hidden
    return computed + 2 * length * (1 if fused else heads) + _kept(shape)


def _kept(shape: ModelShape) -> int:
    """Keys and values that a decoder keeps of a token, though an embedding needs none of them later."""
    if isinstance(shape.attention, NoCache):
        return 0
    values = shape.kv_values_per_layer if isinstance(shape.attention, FullAttention) else None
    return (values if values is not None else 2 * (shape.hidden_size or 0)) * (shape.layers or 0)


def text_bytes(model: EmbeddingModel, length: int, dtype: str, *, own_code: bool = False) -> int | None:
    """The memory of one text of `length` tokens in a batch."""
    values = values_per_token(model, length, own_code=own_code)
    return None if values is None else values * length * BYTES_PER_VALUE.get(dtype, 4)
