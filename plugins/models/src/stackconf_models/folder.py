"""The shape of a model from a folder in Hugging Face's layout: `config.json` and its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stackconf_models.reading import mapping, open_regular, read_json, text, whole
from stackconf_models.shape import (
    Attention,
    Experts,
    FullAttention,
    LatentAttention,
    ModelShape,
    ModelUnreadable,
    NoCache,
    OtherAttention,
    Quantisation,
    SlidingWindow,
)

_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_HIDDEN = ("hidden_size", "n_embd", "d_model", "dim")
_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_INTERMEDIATE = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
_INNER = ("text_config", "llm_config", "language_config", "language_model", "thinker_config")

_ENCODERS = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "gte", "modernbert"}
    | {"mpnet", "new", "nomic_bert", "roberta", "roformer", "xlm-roberta"}
)
_STATE_SPACE = frozenset(
    {"bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "lfm2", "mamba", "mamba2"}
    | {"minimax", "nemotron_h", "plamo2", "qwen3_next", "recurrent_gemma", "rwkv", "zamba", "zamba2"}
)
_STATE_KEYS = frozenset(
    {"attn_layer_period", "hybrid_override_pattern", "layers_block_type", "linear_num_key_heads"}
    | {"mamba_d_state", "ssm_cfg", "ssm_state_size"}
)
_EVERY_NTH_IS_FULL = {"gemma2": 2, "gemma3": 6, "gemma3_text": 6, "cohere2": 4}
"""Of so many layers, the last one sees everything. Source: the configuration classes of transformers."""
_UNLIKE = {
    "attention_chunk_size": "its attention is chunked",
    "is_encoder_decoder": "it is an encoder with a decoder",
    "num_kv_shared_layers": "some layers use the keys and values of others",
    "global_head_dim": "its layers have heads of different length",
}
_COUNTED_IN = frozenset({"su", "longrope", "llama3", "mrope", "default"})


def read_folder(path: str | Path, name: str = "") -> ModelShape:
    """Read `config.json` and the sizes of the weights beside it; `name` is the model's, for people.

    Where the text model of a larger one is nested (`text_config`), that is what is described.
    Raises `ModelUnreadable`.
    """
    folder = Path(path)
    file = folder / "config.json"
    whole_config = read_json(file)
    config = _text_config(whole_config)
    problems: list[str] = []
    layers = whole(config, *_LAYERS)
    hidden, heads = whole(config, *_HIDDEN), whole(config, *_HEADS)
    if layers is None or hidden is None:
        raise ModelUnreadable(f"{file}: does not say how many layers of what size; it is no model's")
    weight_bytes = _weight_bytes(folder, problems)
    quantisation = _quantisation(folder, {**whole_config, **config}, problems)
    architecture = text(config, "model_type")
    return ModelShape(
        name=name or folder.name,
        source=str(file),
        architecture=architecture,
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=_kv_heads(config, heads),
        head_dim=_head_dim(config, hidden, heads),
        vocabulary=whole(config, "vocab_size", "padded_vocab_size"),
        max_context=_max_context(config),
        intermediate_size=whole(config, *_INTERMEDIATE),
        experts=_experts(config),
        attention=_attention(config, architecture, layers),
        tied_embeddings=_tied(config, whole_config),
        weight_bytes=weight_bytes,
        dtype=_dtype(config) or _dtype(whole_config),
        quantisation=quantisation,
        problems=problems,
    )


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The part about the text model, two levels down at most."""
    for _ in range(2):
        if whole(config, *_LAYERS) is not None:
            return config
        inner = next((mapping(config, name) for name in _INNER if mapping(config, name)), None)
        if inner is None:
            return config
        config = inner
    return config


def _kv_heads(config: Mapping[str, Any], heads: int | None) -> int | None:
    """As transformers has it: where nothing is said, each head has keys and values of its own."""
    given = whole(config, *_KV_HEADS)
    if given is not None:
        return given
    return 1 if config.get("multi_query") is True else heads


def _head_dim(config: Mapping[str, Any], hidden: int, heads: int | None) -> int | None:
    given = whole(config, "head_dim", "attention_head_dim")
    return given if given is not None or heads is None else max(1, hidden // heads)


def _max_context(config: Mapping[str, Any]) -> int | None:
    """The longest context the model was made for, as vLLM derives it.

    `max_position_embeddings`, stretched by the factor of `rope_scaling`, except for the kinds that
    count it in already. Source: vLLM `config/model.py`, `_get_and_verify_max_len`.
    """
    limit = whole(config, *_CONTEXT)
    scaling = mapping(config, "rope_scaling") or mapping(config, "rope_parameters")
    kind = text(scaling, "rope_type", "type")
    factor = scaling.get("factor")
    if limit is None or kind is None or kind in _COUNTED_IN:
        return limit
    if "gemma3" in (text(config, "model_type") or ""):
        return limit
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor <= 1024:  # noqa: PLR2004
        return limit
    if kind == "yarn":
        limit = whole(scaling, "original_max_position_embeddings") or limit
    return int(limit * factor)


def _experts(config: Mapping[str, Any]) -> Experts | None:
    count = whole(config, "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
    if count is None or count == 1:
        return None
    return Experts(
        count,
        whole(config, "num_experts_per_tok", "moe_topk", "moe_top_k"),
        whole(config, "moe_intermediate_size"),
        whole(config, "n_shared_experts") or 0,
        whole(config, "first_k_dense_replace") or 0,
    )


def _attention(config: Mapping[str, Any], architecture: str | None, layers: int) -> Attention:
    if architecture in _ENCODERS:
        return NoCache()
    for key, reason in _UNLIKE.items():
        if config.get(key):
            return OtherAttention(reason)
    latent = whole(config, "kv_lora_rank")
    if latent is not None:
        return _latent(config, latent)
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and kinds and all(isinstance(kind, str) for kind in kinds):
        return _by_layer(config, kinds, layers)
    stateful = sorted(_STATE_KEYS & config.keys())
    if architecture in _STATE_SPACE or stateful:
        named = architecture if architecture in _STATE_SPACE else stateful[0]
        return OtherAttention(f"some layers keep a state instead of keys and values ({named})")
    return _windowed(config, architecture, layers)


def _latent(config: Mapping[str, Any], rank: int) -> Attention:
    rope = whole(config, "qk_rope_head_dim")
    if rope is None:
        return OtherAttention("it has latent attention, but qk_rope_head_dim is missing")
    return LatentAttention(
        rank,
        rope,
        whole(config, "q_lora_rank"),
        whole(config, "qk_nope_head_dim"),
        whole(config, "v_head_dim"),
    )


def _by_layer(config: Mapping[str, Any], kinds: list[str], layers: int) -> Attention:
    strange = sorted(set(kinds) - {"full_attention", "sliding_attention"})
    if strange or len(kinds) != layers:
        said = f"layers of kind {strange[0][:60]}" if strange else f"layer_types has {len(kinds)} entries"
        return OtherAttention(f"{said}, for {layers} layers")
    sliding = kinds.count("sliding_attention")
    window = whole(config, "sliding_window")
    if not sliding:
        return FullAttention()
    if window is None:
        return OtherAttention("it has sliding windows of unknown size")
    return SlidingWindow(window, sliding)


def _windowed(config: Mapping[str, Any], architecture: str | None, layers: int) -> Attention:
    window = whole(config, "sliding_window")
    if window is None or config.get("use_sliding_window") is False:
        return FullAttention()
    pattern = whole(config, "sliding_window_pattern", "_sliding_window_pattern")
    nth = pattern or _EVERY_NTH_IS_FULL.get(architecture or "")
    if nth is not None:
        return SlidingWindow(window, layers - layers // nth)
    first = config.get("max_window_layers")
    if config.get("use_sliding_window") is True and isinstance(first, int) and not isinstance(first, bool):
        sliding = max(0, layers - max(0, first))
        return SlidingWindow(window, sliding) if sliding else FullAttention()
    return SlidingWindow(window, layers)


def _tied(config: Mapping[str, Any], outer: Mapping[str, Any]) -> bool | None:
    for values in (config, outer):
        if isinstance(values.get("tie_word_embeddings"), bool):
            return bool(values["tie_word_embeddings"])
    return None


def _dtype(config: Mapping[str, Any]) -> str | None:
    name = (text(config, "torch_dtype", "dtype") or "").removeprefix("torch.")
    if name.startswith("float8"):
        return "float8"
    return {"half": "float16", "float": "float32"}.get(name, name) or None


def _quantisation(folder: Path, config: Mapping[str, Any], problems: list[str]) -> Quantisation | None:
    stated = mapping(config, "quantization_config")
    if stated:
        return _stated(stated)
    file = folder / "hf_quant_config.json"  # NVIDIA's modelopt writes it beside config.json
    if not file.is_file():
        return None
    try:
        inner = mapping(read_json(file), "quantization")
    except ModelUnreadable as error:
        problems.append(str(error))
        return None
    return _modelopt(inner)


def _stated(config: Mapping[str, Any]) -> Quantisation | None:
    method = (text(config, "quant_method") or "").lower().replace("-", "_")
    read: dict[str, Callable[[Mapping[str, Any]], Quantisation]] = {
        "fp8": lambda values: Quantisation("fp8", 8, _block(values)),
        "fbgemm_fp8": lambda _: Quantisation("fp8", 8),
        "mxfp4": lambda _: Quantisation("mxfp4", 4),  # engines pad its blocks of 32, as in gpt-oss
        "bitsandbytes": lambda values: Quantisation("bitsandbytes", 4 if values.get("load_in_4bit") else 8),
        "compressed_tensors": _compressed,
        "modelopt": _modelopt,
    }
    if method in read:
        return read[method](config)
    bits = whole(config, "bits", "w_bit", "nbits")
    return Quantisation(method or "unknown", bits, whole(config, "group_size", "q_group_size"))


def _block(config: Mapping[str, Any]) -> int | None:
    sizes = config.get("weight_block_size")
    if not isinstance(sizes, list):
        return None
    edges = [size for size in sizes if isinstance(size, int) and not isinstance(size, bool) and size > 0]
    return max(edges, default=None)


def _compressed(config: Mapping[str, Any]) -> Quantisation:
    """The weights of the first group, as compressed-tensors writes them (llm-compressor's format)."""
    groups = [each for each in mapping(config, "config_groups").values() if isinstance(each, dict)]
    weights = mapping(groups[0], "weights") if groups else {}
    bits = whole(weights, "num_bits")
    kind = text(weights, "type")
    known = {("float", 8): "fp8", ("int", 8): "int8", ("int", 4): "int4", ("float", 4): "nvfp4"}
    method = known.get((kind or "", bits or 0), "compressed-tensors")
    return Quantisation(method, bits, whole(weights, "group_size"))


def _modelopt(config: Mapping[str, Any]) -> Quantisation:
    algorithm = (text(config, "quant_algo") or "unknown").lower()
    bits = {"fp8": 8, "nvfp4": 4, "w4a16_awq": 4}.get(algorithm)
    return Quantisation(algorithm, bits, whole(config, "group_size"))


_INDEX_END = 64 * 1024
_TOTAL_SIZE = re.compile(rb'"total_size"\s*:\s*(\d{1,19})(?!\d)')
_SHARD = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_TORCH = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")


def _weight_bytes(folder: Path, problems: list[str]) -> int | None:
    """The size of all tensors: what the index says, or else what the files take."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            size = _total_size(index)
        except (ModelUnreadable, OSError) as error:
            problems.append(f"weights: {error}")
        else:
            if size is not None:
                return size
            problems.append(f"weights: {index} does not say their total_size")
    return _file_bytes(folder, problems)


def _total_size(index: Path) -> int | None:
    """`metadata.total_size`, from the ends of the file: what lies between may be megabytes of names."""
    with open_regular(index) as file:
        ends = file.read(_INDEX_END)
        file.seek(max(file.tell(), index.stat().st_size - _INDEX_END))
        ends += file.read(_INDEX_END)
    found = _TOTAL_SIZE.search(ends)
    return whole({"size": int(found[1])}, "size") if found else None


def _file_bytes(folder: Path, problems: list[str]) -> int | None:
    try:
        files = [each for each in folder.iterdir() if each.is_file()]
    except OSError as error:
        problems.append(f"weights: {folder}: {error.strerror}")
        return None
    tensors = [file for file in files if file.suffix == ".safetensors"]
    # Some repositories hold the same weights a second time, in another layout.
    chosen = [file for file in tensors if _SHARD.fullmatch(file.name)] or tensors
    torch = [file for file in files if _TORCH.fullmatch(file.name)]
    try:
        if chosen:
            return sum(map(_safetensors_bytes, chosen))
        if torch:
            return sum(file.stat().st_size for file in torch)
    except (ModelUnreadable, OSError) as error:
        problems.append(f"weights: {error}")
        return None
    problems.append(f"weights: {folder} holds no weights and no model.safetensors.index.json")
    return None


def _safetensors_bytes(file: Path) -> int:
    """The bytes of the tensors: the file without its header, whose length stands first."""
    size = file.stat().st_size
    with open_regular(file) as opened:
        length = int.from_bytes(opened.read(8), "little")
    if length + 8 > size:
        raise ModelUnreadable(f"{file}: is no safetensors file, or was cut off")
    return size - 8 - length
