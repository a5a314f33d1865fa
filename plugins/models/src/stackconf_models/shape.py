"""What a model is made of, as far as memory and parallelism depend on it.

Facts only. `None` is unknown, and `ModelShape.problems` says why; unknown is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from attrs import field, frozen

from stackconf import StackconfError

BYTES_PER_VALUE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8": 1}
"""Bytes of one number, by the names that `config.json` and engines use."""


class ModelUnreadable(StackconfError):
    """A model's files cannot be read as such. One line: which file, what is wrong with it."""


@frozen
class FullAttention:
    """Every layer keeps the keys and values of every token."""


@frozen
class SlidingWindow:
    """In `layers` of the model's layers, a token sees only the `window` tokens before it."""

    window: int
    layers: int


@frozen
class LatentAttention:
    """Multi-head latent attention (MLA): one compressed vector per token and layer, for all heads.

    Source of the names: DeepSeek-V3's `config.json`. What is cached is `kv_rank + rope_dim` values,
    which tensor parallelism does not divide.
    """

    kv_rank: int
    rope_dim: int
    query_rank: int | None = None
    nope_dim: int | None = None
    value_dim: int | None = None


@frozen
class NoCache:
    """An encoder: it reads its text at once and keeps nothing between tokens."""


@frozen
class OtherAttention:
    """A kind whose cache no formula here covers, such as state-space layers, and why."""

    reason: str


Attention: TypeAlias = FullAttention | SlidingWindow | LatentAttention | NoCache | OtherAttention


@frozen
class Experts:
    """The experts of each mixture layer."""

    count: int
    per_token: int | None = None
    intermediate_size: int | None = None
    """Width of one expert; `None`: the model's `intermediate_size`."""
    shared: int = 0
    """Experts of that width that every token visits."""
    dense_layers: int = 0
    """Layers at the beginning that have no experts."""


@frozen
class Quantisation:
    """How the weights are stored, such as `fp8`, `awq`, `gptq`, `nvfp4` or `gguf`.

    `block` is the edge, in values, of what shares a scale and must not be cut by tensor parallelism.
    """

    method: str
    bits: float | None = None
    block: int | None = None
    label: str = ""
    """A name that people know it by, such as `Q4_K_M`."""

    def __str__(self) -> str:
        if self.label:
            return self.label
        return self.method if self.bits is None else f"{self.method} ({self.bits:g} bit)"


def _problems(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@frozen
class ModelShape:
    """One model. Sizes are counts of values; memory is in bytes.

    >>> shape = ModelShape("tiny", source="a test", layers=2, heads=4, kv_heads=2, head_dim=64)
    >>> shape.kv_values_per_layer
    256
    """

    name: str
    source: str
    """Where these facts come from, such as a file's path."""
    architecture: str | None = None
    """As the file calls it, such as `llama` or `gemma2`."""
    layers: int | None = None
    hidden_size: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    value_dim: int | None = None
    """Where a value vector has another length than a key; `None`: the same."""
    vocabulary: int | None = None
    max_context: int | None = None
    intermediate_size: int | None = None
    experts: Experts | None = None
    attention: Attention = field(factory=FullAttention)
    tied_embeddings: bool | None = None
    parameters: int | None = None
    """Exact, from the file or its publisher; see `memory.parameters` for the estimate."""
    weight_bytes: int | None = None
    """The tensors on disk; exact where known."""
    layer_bytes: tuple[int, ...] | None = None
    """The tensors of each layer, first to last; known from a GGUF file only."""
    input_bytes: int | None = None
    """The table of words that come in (`token_embd`), which llama.cpp keeps in main memory; known from
    a GGUF file only."""
    dtype: str | None = None
    """`bfloat16`, `float16`, `float32`, `float8`: what unquantised values are."""
    quantisation: Quantisation | None = None
    problems: tuple[str, ...] = field(default=(), converter=_problems)

    @property
    def kv_values_per_layer(self) -> int | None:
        """Values that one layer keeps for one token, over all heads; `None` where unknown.

        Source: AIConfigurator `sdk/models/base.py`; for MLA, DeepSeek-V3's own inference code.
        """
        if isinstance(self.attention, NoCache):
            return 0
        if isinstance(self.attention, LatentAttention):
            return self.attention.kv_rank + self.attention.rope_dim
        if self.kv_heads is None or self.head_dim is None:
            return None
        return self.kv_heads * (self.head_dim + (self.value_dim or self.head_dim))
