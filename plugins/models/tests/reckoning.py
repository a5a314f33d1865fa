"""The sizes again, reckoned from first principles and from nothing of `stackconf_models`.

What is typed here is typed from the sources: `config.json` and the index of the weights' files on
Hugging Face, `nvidia-smi` for the memory of cards, AIConfigurator's `systems/*.yaml` and
`_get_memory_usage` for what is estimated, vLLM's own source for the KV cache. The contexts are found
the way vLLM checks them at its start, by counting pages layer by layer, not by a formula.

    weights     https://huggingface.co/<model>/blob/main/model.safetensors.index.json, `total_size`
    KV cache    https://github.com/vllm-project/vllm/blob/main/vllm/v1/kv_cache_interface.py
    blocks      https://github.com/vllm-project/vllm/blob/main/vllm/platforms/cuda.py
    the rest    https://github.com/ai-dynamo/aiconfigurator
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

MIB, GIB = 1 << 20, 1 << 30


@dataclass
class Config:
    """The part of a model's `config.json` that decides, by its own names."""

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    widths: tuple[int, ...]
    """What tensor parallelism cuts, beside the heads."""
    total_size: int
    experts: int = 0
    mixture_layers: int = 0
    sliding_window: int = 0
    kv_lora_rank: int = 0
    qk_rope_head_dim: int = 0
    block: int = 0
    """Edge of the quantised blocks."""
    float16_will_do: bool = True
    """Where there is no bfloat16."""


def deepseek_v3(layers: int = 61) -> dict[str, int]:
    """Bytes of DeepSeek-V3 by the names of its tensors: FP8 with a float32 scale for 128 x 128."""

    def fp8(rows: int, columns: int) -> int:
        return rows * columns + 4 * ceil(rows / 128) * ceil(columns / 128)

    hidden, heads = 7168, 128
    attention = (
        fp8(1536, hidden)  # q_a_proj
        + fp8(heads * (128 + 64), 1536)  # q_b_proj
        + fp8(512 + 64, hidden)  # kv_a_proj_with_mqa
        + fp8(heads * (128 + 128), 512)  # kv_b_proj
        + fp8(hidden, heads * 128)  # o_proj
        + 2 * (1536 + 512 + 2 * hidden)  # norms
    )
    expert = 2 * fp8(2048, hidden) + fp8(hidden, 2048)
    mixture = 257 * expert + 2 * 256 * hidden + 4 * 256  # with the shared one, the router and its bias
    dense = 2 * fp8(18432, hidden) + fp8(hidden, 18432)
    table = 2 * 129280 * hidden
    return {
        "main": 2 * table + 2 * hidden + layers * attention + 3 * dense + (layers - 3) * mixture,
        # The extra layer for predicting a second token, which vLLM does not load unless asked to.
        "mtp": 2 * table + 2 * 3 * hidden + 2 * 2 * hidden * hidden + attention + mixture,
        "latent": layers * (fp8(1536, hidden) + fp8(576, hidden)),
        "router": (layers - 3) * 2 * 256 * hidden,
    }


MODELS = {
    "meta-llama/Llama-3.1-8B-Instruct": Config(32, 4096, 32, 8, 128, 131072, (14336,), 16_060_522_496),
    "meta-llama/Llama-3.3-70B-Instruct": Config(80, 8192, 64, 8, 128, 131072, (28672,), 141_107_412_992),
    "google/gemma-2-9b-it": Config(
        42, 3584, 16, 8, 256, 8192, (14336,), 18_483_411_968, sliding_window=4096, float16_will_do=False
    ),
    "Qwen/Qwen3-30B-A3B": Config(
        48, 2048, 32, 4, 128, 40960, (768,), 61_064_245_248, experts=128, mixture_layers=48
    ),
    "deepseek-ai/DeepSeek-V3": Config(
        *(61, 7168, 128, 128, 192, 163840, (2048, 18432), deepseek_v3()["main"]),
        experts=256,
        mixture_layers=58,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        block=128,
    ),
}

MACHINES: dict[str, tuple[int, int, float, bool]] = {
    # expression: (cards, MiB by nvidia-smi, compute capability, whether vLLM calls it large)
    "t4": (1, 15360, 7.5, False),
    "t4:2": (2, 15360, 7.5, False),
    "l4": (1, 23034, 8.9, False),
    "rtx-4090": (1, 24564, 8.9, False),
    "rtx-4090:2": (2, 24564, 8.9, False),
    "l40s:2": (2, 46068, 8.9, False),
    "l40s:4": (4, 46068, 8.9, False),
    "a100-40gb-sxm:4": (4, 40960, 8.0, False),
    "a100-80gb-sxm:8": (8, 81920, 8.0, False),  # 80 GiB, but an A100: vllm#17885
    "h100-80gb-sxm": (1, 81559, 9.0, True),
    "h100-80gb-sxm:8": (8, 81559, 9.0, True),
    "h200-141gb-sxm:8": (8, 143771, 9.0, True),
    "b200-180gb-sxm:8": (8, 183359, 10.0, True),
    "gh200-96gb": (1, 97871, 9.0, True),
    "mi300x:8": (8, 196592, 0.0, True),
    "7 x MIG 1g.10gb": (1, 9984, 9.0, False),  # instances are never joined
}
"""Without `gb10`, whose memory NVML does not tell."""

FRACTION = 0.92
NCCL = {1: 0, 2: 358_612_992, 4: 411_041_792, 8: 411_041_792}
OTHER = 3_758_096_384
COEFFICIENT = {1: 11, 2: 6.5, 4: 5, 8: 5}
LEAST = 4096
"""A shorter context is called no fit."""


@dataclass
class Reckoned:
    tp: int
    weights: int
    activations: int
    nccl: int
    left: int
    per_token: int
    context: int
    """0 where it does not fit."""
    tokens: int


def splits(config: Config, most: int) -> list[int]:
    """The numbers of GPUs by which everything that is cut can be cut."""
    good = []
    for tp in range(1, most + 1):
        kv = config.num_key_value_heads
        even = config.num_attention_heads % tp == 0 and (kv % tp == 0 or tp % kv == 0)
        even = even and all(width % tp == 0 for width in config.widths)
        if config.block and tp > 1:
            even = even and all(width // tp % config.block == 0 for width in config.widths)
        if even:
            good.append(tp)
    return good


def value_bytes(config: Config, capability: float) -> int:
    """Of a value that is computed with: 2, but 4 where bfloat16 lacks and float16 will not do."""
    return 4 if 0 < capability < 8 and not config.float16_will_do else 2


def layer_bytes(config: Config, tp: int, size: int) -> int:
    """Of one token in one layer on one GPU."""
    if config.kv_lora_rank:
        return (config.kv_lora_rank + config.qk_rope_head_dim) * size
    heads = max(1, config.num_key_value_heads // tp)
    return 2 * heads * config.head_dim * size


def pages(config: Config, context: int, batched: int, block: int) -> int:
    """Tokens' worth of pages over all layers, as vLLM's `max_memory_usage_bytes` counts them."""
    full = ceil(context / block) * block
    if not config.sliding_window:
        return config.num_hidden_layers * full
    seen = min(config.sliding_window - 1 + batched, context)
    window = (ceil(seen / block) + 1) * block
    half = config.num_hidden_layers // 2
    return half * full + (config.num_hidden_layers - half) * window


def on_each(config: Config, tp: int, capability: float) -> int:
    """The weights on one GPU."""
    total = config.total_size * value_bytes(config, capability) // 2
    if tp == 1:
        return total
    whole = 0
    if config.kv_lora_rank:
        parts = deepseek_v3()
        whole = parts["latent"] + parts["router"]
    elif config.experts:
        whole = config.mixture_layers * config.experts * config.hidden_size * 2
    share = (total - whole) / tp + whole
    if tp > config.num_key_value_heads and not config.kv_lora_rank:
        matrices = 2 * config.hidden_size * config.head_dim * config.num_key_value_heads * 2
        matrices *= config.num_hidden_layers
        share += matrices / config.num_key_value_heads - matrices / tp
    return ceil(share)


def reckon(model: str, machine: str, tp: int) -> Reckoned:
    """What fits with `tp` cards of this machine's kind."""
    config = MODELS[model]
    _, mib, capability, large = MACHINES[machine]
    batched = 8192 if large else 2048
    size = value_bytes(config, capability)
    width = config.hidden_size if config.kv_lora_rank else config.num_attention_heads * config.head_dim
    step = max(step for step in COEFFICIENT if step <= tp)
    activations = max(2 * batched * width * COEFFICIENT[step] * (2 if config.experts else 1), 70 * MIB)
    weights = on_each(config, tp, capability)
    left = int(mib * MIB * FRACTION) - weights - int(activations) - NCCL[step] - OTHER
    one = layer_bytes(config, tp, size)
    block = (128 if capability >= 10 or not capability else 64) if config.kv_lora_rank else 16
    context = _longest(config, left, one, batched, block, config.max_position_embeddings)
    least = min(LEAST, config.max_position_embeddings)
    tokens = _longest(config, left, one, batched, 1, 1 << 30)
    fits = context >= least
    return Reckoned(
        tp,
        weights,
        int(activations),
        NCCL[step],
        left,
        one * config.num_hidden_layers,
        context * fits,
        tokens,
    )


def _longest(config: Config, left: int, one: int, batched: int, block: int, most: int) -> int:
    """By bisection: the longest context whose pages there is room for."""
    low, high = 0, most // block
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (
            (middle, high)
            if pages(config, middle * block, batched, block) * one <= left
            else (low, middle - 1)
        )
    return low * block


def best(model: str, machine: str) -> Reckoned | None:
    """The longest context that any split serves, on as few cards as that takes, or `None`."""
    found = [reckon(model, machine, tp) for tp in splits(MODELS[model], MACHINES[machine][0])]
    longest = max(each.context for each in found)
    return next((each for each in found if longest and each.context == longest), None)


def told(text: str) -> tuple[float, float]:
    """What a printed size, such as `65.7 GiB`, may be at least and at most.

    >>> [round(size / GIB, 2) for size in told("65.7 GiB")]
    [65.65, 65.75]
    """
    number, unit = text.split()
    scale: Any = {"KiB": 1024, "MiB": MIB, "GiB": GIB}[unit]
    return (float(number) - 0.05) * scale, (float(number) + 0.05) * scale
