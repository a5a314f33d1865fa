"""How much memory a model takes, by part. All amounts in bytes.

Sources: NVIDIA AIConfigurator (https://github.com/ai-dynamo/aiconfigurator): `sdk/models/base.py`
for the KV cache, `_get_memory_usage` of `sdk/backends/trtllm_backend.py` (which its vLLM backend
calls too) for the activations, `systems/*.yaml` for NCCL and the rest.
"""

from __future__ import annotations

from attrs import frozen

from stackconf import Because, because, size_text
from stackconf_models.shape import (
    BYTES_PER_VALUE,
    LatentAttention,
    ModelShape,
    NoCache,
    OtherAttention,
    Quantisation,
    SlidingWindow,
)

MIB = 1024**2
GIB = 1024**3

OTHER_BYTES = 3_758_096_384
"""CUDA's context, cuBLAS, graphs, and what the formulas miss: 3.5 GiB. Source: AIConfigurator
`other_mem`, "increase from 551MB to 3.5GB for safer deployment"."""

_NCCL_BYTES = ((8, 411_041_792), (4, 411_041_792), (2, 358_612_992), (1, 0))
_LEAST_ACTIVATIONS = 70 * MIB
_DENSE = ((8, 5.0), (4, 5.0), (2, 6.5), (1, 11.0))
_EXPERTS = ((8, 10.0), (4, 10.0), (2, 13.0), (1, 22.0))

_STORED_BITS = {
    "int8": 8.0,
    "nvfp4": 4 + 8 / 16,
    "mxfp4": 4 + 8 / 32,
    "bitsandbytes4": 4 + 32 / 64,
    "bitsandbytes8": 8.0,
}
"""Bits of one quantised weight with its share of the scale: one 8-bit scale for 16 (NVFP4) or 32
(MXFP4) values, one 32-bit for 64 (bitsandbytes' NF4)."""
_GROUP = 128

_GATED = frozenset(
    {"cohere", "cohere2", "deepseek_v2", "deepseek_v3", "gemma", "gemma2", "gemma3", "gemma3_text", "granite"}
    | {"kimi_k2", "llama", "mistral", "mixtral", "olmo2", "olmoe", "phi3", "phimoe", "qwen2", "qwen2_moe"}
    | {"qwen3", "qwen3_moe", "yi"}
)
"""Architectures whose feed-forward part is three matrices, with query, key, value and output."""


def parameters(shape: ModelShape) -> Because[int | None]:
    """How many weights the model has: as published, or computed from its matrices.

    The computed figure leaves out norms and biases, less than 0.1 % together.

    >>> from stackconf_models.known import known_model
    >>> parameters(known_model("Llama-3.1-8B"))
    Because(value=8030261248, reason='8.03 billion, as published')
    """
    if shape.parameters is not None:
        return because(shape.parameters, f"{shape.parameters / 1e9:.2f} billion, as published")
    computed = computed_parameters(shape)
    if computed is None:
        return because(None, f"the number of weights of {shape.name} is unknown")
    return because(computed, f"{computed / 1e9:.2f} billion, from its matrices")


def computed_parameters(shape: ModelShape) -> int | None:
    """The values in the model's matrices, or `None` for an architecture of another build."""
    hidden, layers, wide = shape.hidden_size, shape.layers, shape.intermediate_size
    attention, embeddings = _attention_values(shape), _embedding_values(shape)
    if shape.architecture not in _GATED or None in {hidden, layers, wide, attention, embeddings}:
        return None
    assert hidden and layers and wide and attention and embeddings  # noqa: S101, PT018 (asked above)
    dense = 3 * hidden * wide
    experts = shape.experts
    if experts is None:
        return embeddings + layers * (attention + dense)
    each = 3 * hidden * (experts.intermediate_size or wide)
    mixture = (experts.count + experts.shared) * each + hidden * experts.count
    first = min(experts.dense_layers, layers)
    return embeddings + layers * attention + first * dense + (layers - first) * mixture


def _embedding_values(shape: ModelShape) -> int | None:
    """The table of words, and the output layer where that is a table of its own."""
    if shape.vocabulary is None or shape.hidden_size is None:
        return None
    return shape.vocabulary * shape.hidden_size * (1 if shape.tied_embeddings else 2)


def _attention_values(shape: ModelShape) -> int | None:
    hidden, heads = shape.hidden_size, shape.heads
    if hidden is None or heads is None:
        return None
    kind = shape.attention
    if isinstance(kind, LatentAttention):
        if kind.nope_dim is None or kind.value_dim is None:
            return None
        query = heads * (kind.nope_dim + kind.rope_dim)
        asking = hidden * query if kind.query_rank is None else kind.query_rank * (hidden + query)
        cached = hidden * (kind.kv_rank + kind.rope_dim) + kind.kv_rank * heads * (
            kind.nope_dim + kind.value_dim
        )
        return asking + cached + heads * kind.value_dim * hidden
    if shape.kv_heads is None or shape.head_dim is None:
        return None
    return 2 * hidden * shape.head_dim * (heads + shape.kv_heads)


def weight_bytes(
    shape: ModelShape, *, quantisation: Quantisation | None = None, dtype: str | None = None
) -> Because[int | None]:
    """The memory of all weights together.

    As stored, where the files tell; otherwise parameters x bytes. `quantisation` asks what it would
    be with another one: its bits for the layers, 16-bit embeddings and routers, as quantised models
    are published.
    `dtype` is what unquantised weights are loaded as.

    >>> from stackconf_models.known import known_model
    >>> weight_bytes(known_model("Llama-3.1-8B")).reason
    'weights 15 GiB: 8.03 billion, as published, 2 bytes each'
    """
    if quantisation is not None and quantisation != shape.quantisation:
        return _quantised_bytes(shape, quantisation)
    if shape.weight_bytes is not None:
        return _stored_bytes(shape, dtype)
    if shape.quantisation is not None:
        return _quantised_bytes(shape, shape.quantisation)
    count = parameters(shape)
    size = BYTES_PER_VALUE.get(dtype or shape.dtype or "")
    if count.value is None:
        return because(None, f"{count.reason}, and its weights are not on this machine")
    if size is None:
        return because(None, f"the type of the weights of {shape.name} is unknown ({shape.dtype})")
    total = count.value * size
    return because(total, f"weights {size_text(total)}: {count.reason}, {size} bytes each")


def _stored_bytes(shape: ModelShape, dtype: str | None) -> Because[int | None]:
    stored = shape.weight_bytes
    assert stored is not None  # noqa: S101 (asked before)
    before, after = (BYTES_PER_VALUE.get(name or "") for name in (shape.dtype, dtype))
    if before == after or before is None or after is None or shape.quantisation is not None:
        return because(stored, f"weights {size_text(stored)}, as stored")
    loaded = -(-stored * after // before)
    told = f"weights {size_text(loaded)} as {dtype}, {size_text(stored)} as stored in {shape.dtype}"
    return because(loaded, told)


def _quantised_bytes(shape: ModelShape, quantisation: Quantisation) -> Because[int | None]:
    count, bits = parameters(shape), _bits(quantisation)
    if count.value is None or bits is None:
        missing = count.reason if count.value is None else f"the bits of {quantisation} are unknown"
        return because(None, missing)
    outside = 0
    if quantisation.method != "gguf":
        outside = min((_embedding_values(shape) or 0) + _router_values(shape), count.value)
    total = int((count.value - outside) * bits / 8) + outside * 2
    return because(
        total, f"weights {size_text(total)}: {count.reason}, {bits:.3g} bits each as {quantisation}"
    )


def _bits(quantisation: Quantisation) -> float | None:
    method, bits = quantisation.method, quantisation.bits
    if method == "bitsandbytes" and bits is not None:
        method = f"{method}{bits:g}"
    if method == "fp8":
        # A 32-bit scale for each square of that edge; without squares, one for a row or a matrix.
        return 8 + (32 / quantisation.block**2 if quantisation.block else 0)
    if method in _STORED_BITS:
        return _STORED_BITS[method]
    if bits is None or method == "gguf":
        return bits
    # A 16-bit scale and a zero point of as many bits as a weight for each group (AWQ, GPTQ).
    return bits + (16 + bits) / (quantisation.block or _GROUP)


def weights_on_each(
    shape: ModelShape, tp: int, *, quantisation: Quantisation | None = None, dtype: str | None = None
) -> Because[int | None]:
    """The memory of the weights on each of `tp` GPUs: a share, and whole what is not divided.

    Not divided are the router of a mixture and, with MLA, the matrices that make the compressed
    vectors; of the key and value matrices each GPU keeps at least one head. Source: vLLM's
    `ReplicatedLinear` in `models/deepseek_v2.py`, and `QKVParallelLinear`.

    >>> from stackconf_models.known import known_model
    >>> round(weights_on_each(known_model("DeepSeek-V3"), 8).value / GIB, 1)  # vLLM logged 79.3
    79.3
    """
    whole = weight_bytes(shape, quantisation=quantisation, dtype=dtype)
    if whole.value is None or tp == 1:
        return whole
    undivided = min(_undivided_bytes(shape, tp, whole.value, quantisation or shape.quantisation), whole.value)
    return because(-(-(whole.value - undivided) // tp) + undivided, whole.reason)


def _undivided_bytes(shape: ModelShape, tp: int, whole: int, quantisation: Quantisation | None) -> int:
    """What stands on each GPU beyond its share, as if so much were not divided at all."""
    hidden, layers, kind = shape.hidden_size or 0, shape.layers or 0, shape.attention
    count = parameters(shape).value
    if not count:
        return 0
    # Routers are not quantised; the mean of all stands for what a value in a layer takes otherwise.
    bits = None if quantisation is None else _bits(quantisation)
    size, router = (whole / count, whole / count) if bits is None else (bits / 8, 2)
    values: float = 0
    if isinstance(kind, LatentAttention):
        values = hidden * ((kind.query_rank or 0) + kind.kv_rank + kind.rope_dim) * layers
    elif shape.kv_heads and tp > shape.kv_heads:
        # Of keys and values 1/kv_heads stands where 1/tp would be the share.
        values = hidden * (shape.kv_values_per_layer or 0) * layers
        values *= (1 / shape.kv_heads - 1 / tp) / (1 - 1 / tp)
    return int(values * size + _router_values(shape) * router)


def _router_values(shape: ModelShape) -> int:
    """What chooses the experts: one value for each of them and each of the layer's inputs."""
    if shape.experts is None:
        return 0
    layers = max(0, (shape.layers or 0) - shape.experts.dense_layers)
    return layers * (shape.hidden_size or 0) * shape.experts.count


@frozen
class KvCache:
    """What the tokens of one sequence cost on each GPU, in bytes.

    `per_token` in layers that keep everything, `in_window` in layers that keep the last `window`.

    >>> KvCache(per_token=100, in_window=50, window=10).size(12)
    1700
    """

    per_token: int
    in_window: int = 0
    window: int = 0

    def size(self, tokens: int) -> int:
        """The bytes of so many tokens."""
        return self.per_token * tokens + self.in_window * min(tokens, self.window)

    def tokens(self, room: int) -> int | None:
        """The most tokens that `room` bytes hold; `None` when any number does.

        >>> KvCache(per_token=100, in_window=50, window=10).tokens(1799)
        12
        """
        room = max(0, room)
        both = self.per_token + self.in_window
        if both and room // both < self.window:
            return room // both
        if not self.per_token:
            return None
        return (room - self.in_window * self.window) // self.per_token

    def __str__(self) -> str:
        if not self.per_token and not self.in_window:
            return "no KV cache"
        text = f"KV cache {size_text(self.per_token + self.in_window)} per token"
        if not self.in_window:
            return text
        return f"{text}, {size_text(self.per_token)} after {self.window} tokens"


def kv_cache(
    shape: ModelShape, *, tp: int = 1, value_bytes: int = 2, ahead: int = 0
) -> Because[KvCache | None]:
    """The KV cache on each of `tp` GPUs.

    Full attention: ceil(KV heads / tp) x (key + value length) x layers x bytes a token. MLA:
    (kv_lora_rank + qk_rope_head_dim) x layers x bytes, on every GPU alike. Layers with a window
    keep its tokens and the `ahead` that are processed at once (vLLM `SlidingWindowSpec`; llama.cpp
    adds its `n_ubatch`). Source: AIConfigurator `sdk/models/base.py`.

    >>> from stackconf_models.known import known_model
    >>> kv_cache(known_model("Llama-3.1-8B")).value.per_token
    131072
    """
    kind, layers = shape.attention, shape.layers
    if isinstance(kind, NoCache):
        return because(KvCache(0), "an encoder keeps no KV cache")
    if isinstance(kind, OtherAttention):
        return because(None, f"the KV cache of {shape.name} is unknown: {kind.reason}")
    one = _one_layer(shape, tp)
    if one is None or layers is None:
        return because(None, f"the KV cache of {shape.name} is unknown: its heads or layers are")
    one *= value_bytes
    if isinstance(kind, SlidingWindow):
        sliding = min(kind.layers, layers)
        cache = KvCache(one * (layers - sliding), one * sliding, kind.window + ahead)
    else:
        cache = KvCache(one * layers)
    return because(cache, str(cache))


def _one_layer(shape: ModelShape, tp: int) -> int | None:
    """Values that one layer keeps for one token on each GPU."""
    every = shape.kv_values_per_layer
    if every is None or isinstance(shape.attention, LatentAttention) or shape.kv_heads is None:
        return every
    return every // shape.kv_heads * -(-shape.kv_heads // tp)


def activation_bytes(shape: ModelShape, tokens: int, *, tp: int = 1) -> int | None:
    """Working memory for `tokens` processed at once, on each of `tp` GPUs.

    2 x tokens x heads x head length x c, with c = 11, 6.5, 5, 5 for 1, 2, 4, 8 GPUs, twice that
    for a mixture of experts; at least 70 MiB. Source: AIConfigurator, see above; it was measured
    with TensorRT-LLM. Its extra workspace for DeepSeek is TensorRT-LLM's own and left out.

    >>> from stackconf_models.known import known_model
    >>> activation_bytes(known_model("Llama-3.1-8B"), 8192) == 2 * 8192 * 4096 * 11
    True
    """
    width = shape.hidden_size
    if not isinstance(shape.attention, LatentAttention) and shape.heads and shape.head_dim:
        width = shape.heads * shape.head_dim
    if width is None:
        return None
    coefficient = _at(_DENSE if shape.experts is None else _EXPERTS, tp)
    return max(int(2 * tokens * width * coefficient), _LEAST_ACTIVATIONS)


def nccl_bytes(tp: int) -> int:
    """NCCL's buffers on each of `tp` GPUs: 0, 342, 392, 392 MiB for 1, 2, 4, 8. Source: AIConfigurator.

    >>> [nccl_bytes(tp) // MIB for tp in (1, 2, 4, 8)]
    [0, 342, 392, 392]
    """
    return int(_at(_NCCL_BYTES, max(tp, 1) if tp != 3 else 4))  # noqa: PLR2004 (3 lies between 2 and 4)


def _at(steps: tuple[tuple[int, float], ...], tp: int) -> float:
    """The figure of the next smaller number of GPUs that was measured."""
    return next(value for number, value in steps if number <= max(tp, 1))
