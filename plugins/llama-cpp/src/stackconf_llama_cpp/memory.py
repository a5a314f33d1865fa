"""How much memory llama.cpp takes for a model, by part. All amounts in bytes.

Sources are files of llama.cpp (https://github.com/ggml-org/llama.cpp) at b11434, and figures that it
logs.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from stackconf import Because, because, size_text
from stackconf_models import (
    ModelShape,
    NoCache,
    OtherAttention,
    Quantisation,
    SlidingWindow,
    parameters,
    weight_bytes,
)
from stackconf_models.shape import LatentAttention

MIB = 1024**2
STEP = 256
"""A context is a multiple of this. Source: `GGML_PAD` in `src/llama-context.cpp`."""
FLOAT = 4
OUTPUT_BITS = 6.5625
"""The output layer is stored with at least so many (Q6_K). Source: `llama_tensor_get_type` in
`src/llama-quant.cpp`."""

CACHE_TYPES: Mapping[str, tuple[int, int]] = {
    "f32": (1, 4),
    "f16": (1, 2),
    "bf16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
"""Values in a block, and its bytes. Source: `kv_cache_types` in `common/arg.cpp`; ggml's type traits."""

BITS: Mapping[str, float] = {
    "F16": 16.0005,
    "BF16": 16.0005,
    "Q8_0": 8.5008,
    "Q6_K": 6.5633,
    "Q5_K_M": 5.7036,
    "Q5_K_S": 5.5704,
    "Q4_K_M": 4.8944,
    "Q4_K_S": 4.6672,
    "IQ4_NL": 4.6818,
    "IQ4_XS": 4.4597,
    "Q3_K_L": 4.2979,
    "Q3_K_M": 3.9960,
    "Q3_K_S": 3.6429,
    "IQ3_M": 3.7628,
    "IQ3_S": 3.6606,
    "IQ3_XS": 3.4977,
    "IQ3_XXS": 3.2548,
    "Q2_K": 3.1593,
    "Q2_K_S": 2.9697,
    "IQ2_M": 2.9294,
    "IQ2_S": 2.7403,
    "IQ2_XS": 2.5882,
    "IQ2_XXS": 2.3824,
    "IQ1_M": 2.1460,
    "IQ1_S": 2.0042,
}
"""Bits of one weight, over a whole Llama 3.1 8B. Source: `tools/quantize/README.md`."""


@frozen
class Weights:
    """A model's weights where llama.cpp puts them: `input` always in main memory, `output` on the device
    of the last layers. One table that serves as both is counted in both places.
    """

    layers: tuple[int, ...]
    input: int
    output: int

    @property
    def total(self) -> int:
        """All that is loaded."""
        return sum(self.layers) + self.input + self.output


def weights(shape: ModelShape, quantisation: str | None = None) -> Because[Weights | None]:
    """The weights by place: as the GGUF file says, else parameters x bits of `quantisation`.

    The estimate gives the output layer at least 6.5625 bits (Q6_K), as llama-quantize does.

    >>> from stackconf_models import known_model
    >>> told = weights(known_model("Llama-3.1-8B"), "Q4_K_M")
    >>> told.reason
    'weights 4.6 GiB: 8.03 billion, as published, 4.8944 bits each as Q4_K_M'
    >>> len(told.value.layers), told.value.output == 128256 * 4096 * 210 // 256
    (32, True)
    """
    if shape.weight_bytes is not None and shape.layer_bytes is not None:
        return because(
            _stored(shape, shape.weight_bytes, shape.layer_bytes),
            f"weights {size_text(shape.weight_bytes)}, as stored",
        )
    return _estimated(shape, quantisation)


def _stored(shape: ModelShape, total: int, layers: tuple[int, ...]) -> Weights:
    outside = total - sum(layers)
    if shape.tied_embeddings or shape.input_bytes is None:
        return Weights(layers, outside, outside)
    return Weights(layers, shape.input_bytes, outside - shape.input_bytes)


def _estimated(shape: ModelShape, quantisation: str | None) -> Because[Weights | None]:
    if quantisation is None:
        return because(None, f"how {shape.name} is quantised is unknown; set model_path or quantization")
    bits, count = BITS.get(quantisation), parameters(shape)
    if bits is None:
        return because(None, f"the bits of {quantisation} are unknown")
    if count.value is None or not shape.layers or not shape.vocabulary or not shape.hidden_size:
        return because(
            None, count.reason if count.value is None else f"the sizes of {shape.name} are unknown"
        )
    total = weight_bytes(shape, quantisation=Quantisation("gguf", bits, None, quantisation)).value or 0
    table = shape.vocabulary * shape.hidden_size
    output = int(table * max(bits, OUTPUT_BITS) / 8)
    # What is tied is one table in the file, at the output layer's bits, and in both places when loaded.
    given = output if shape.tied_embeddings else int(table * bits / 8)
    outside = output if shape.tied_embeddings else output + given
    each = max(0, total - outside) // shape.layers
    reason = f"weights {size_text(total)}: {count.reason}, {bits:g} bits each as {quantisation}"
    return because(Weights((each,) * shape.layers, given, output), reason)


def row_bytes(values: int, kind: str) -> int:
    """What so many values take in a type of cache. Source: `ggml_row_size`.

    >>> row_bytes(1024, "f16"), row_bytes(1024, "q8_0"), row_bytes(1024, "q4_0")
    (2048, 1088, 576)
    """
    block, size = CACHE_TYPES[kind]
    return -(-values // block) * size


@frozen
class Slots:
    """How the context is shared out: `context` tokens in all. `shared`: one cache for every slot, so that
    each may use all of it; otherwise each has its part.
    """

    context: int
    count: int = 1
    shared: bool = False

    @property
    def each(self) -> int:
        """The context of one slot: a multiple of 256. Source: `n_ctx_seq` in `src/llama-context.cpp`.

        >>> Slots(8192, 4).each, Slots(8192, 4, shared=True).each, Slots(1000, 3).each
        (2048, 8192, 512)
        """
        return padded(self.context if self.shared else self.context // self.count)


def padded(tokens: int) -> int:
    """The next multiple of 256."""
    return -(-tokens // STEP) * STEP


@frozen
class Cache:
    """The KV cache of one layer for one token: in layers that keep everything, and in `sliding` ones that
    keep a `window` only.
    """

    layer_token: int
    layers: int
    sliding: int = 0
    window: int = 0
    ubatch: int = 512

    @property
    def per_token(self) -> int:
        """Over all layers, for the first tokens."""
        return self.layer_token * self.layers

    def size(self, slots: Slots) -> int:
        """The whole cache. Source: `src/llama-kv-cache-iswa.cpp`: a window has the tokens of one micro
        batch more, and is padded to 256; slots that share a cache share that as well.

        >>> Cache(4096, 32).size(Slots(8192)) == 1024 * MIB  # Llama 3 8B
        True
        """
        streams = 1 if slots.shared else slots.count
        windows = self.window * (slots.count if slots.shared else 1)
        inside = padded(min(slots.each, windows + self.ubatch))
        cells = (self.layers - self.sliding) * slots.each + self.sliding * inside
        return self.layer_token * cells * streams

    def __str__(self) -> str:
        if not self.layer_token:
            return "no KV cache"
        text = f"KV cache {size_text(self.per_token)} per token"
        if not self.sliding:
            return text
        return (
            f"{text}, {size_text(self.layer_token * (self.layers - self.sliding))} after {self.window} tokens"
        )


def cache(
    shape: ModelShape, *, type_k: str = "f16", type_v: str = "f16", ubatch: int = 512
) -> Because[Cache | None]:
    """The KV cache: KV heads x (key length in `type_k` + value length in `type_v`) a token and layer.

    MLA keeps one compressed key and no value (`src/llama-kv-cache.cpp`, `has_v`).

    >>> from stackconf_models import known_model
    >>> [str(cache(known_model("Llama-3.1-8B"), type_k=kind).value) for kind in ("f16", "q8_0")]
    ['KV cache 128 KiB per token', 'KV cache 98 KiB per token']
    """
    kind, layers = shape.attention, shape.layers
    if isinstance(kind, NoCache):
        return because(Cache(0, layers or 0), "an encoder keeps no KV cache")
    if isinstance(kind, OtherAttention):
        return because(None, f"the KV cache of {shape.name} is unknown: {kind.reason}")
    each = _layer_token(shape, type_k, type_v)
    if each is None or layers is None:
        return because(None, f"the KV cache of {shape.name} is unknown: its heads or layers are")
    if isinstance(kind, SlidingWindow):
        found = Cache(each, layers, min(kind.layers, layers), kind.window, ubatch)
    else:
        found = Cache(each, layers, ubatch=ubatch)
    return because(found, str(found))


def _layer_token(shape: ModelShape, type_k: str, type_v: str) -> int | None:
    kind = shape.attention
    if isinstance(kind, LatentAttention):
        return row_bytes(kind.kv_rank + kind.rope_dim, type_k)
    if shape.kv_heads is None or shape.head_dim is None:
        return None
    keys = shape.kv_heads * shape.head_dim
    values = shape.kv_heads * (shape.value_dim or shape.head_dim)
    return row_bytes(keys, type_k) + row_bytes(values, type_v)


def compute_bytes(shape: ModelShape, *, ubatch: int, context: int, flash: bool) -> int | None:
    """What a device takes for computing, beside weights and cache.

    The larger of the output layer, `ubatch` x (vocabulary + width) x 4, and attention: without flash
    attention every head's scores over the `context` of one slot, their mask, and four activations.
    Flash attention keeps the mask in 32 and 16 bits beside what is larger.

    >>> from stackconf_models import known_model
    >>> model = known_model("Llama-3.1-8B")
    >>> compute_bytes(model, ubatch=512, context=8192, flash=False) // MIB  # as logged
    560
    >>> compute_bytes(model, ubatch=512, context=512, flash=False) / MIB  # as logged
    258.5
    """
    if shape.vocabulary is None or shape.hidden_size is None or shape.heads is None:
        return None
    output = ubatch * (shape.vocabulary + shape.hidden_size) * FLOAT
    if flash:
        return output + ubatch * context * (FLOAT + 2)
    return max(output, ubatch * (context * (shape.heads + 1) + 4 * shape.hidden_size) * FLOAT)
