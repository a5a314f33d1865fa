"""Well-known models, for planning where the model's files are not on the machine.

Each line is what the `config.json` of the named repository on Hugging Face says, and the number of
parameters that its safetensors files have. A test computes the parameters from the other figures
and compares: a wrong figure does not stay. What was not certain is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import evolve

from stackconf_models.shape import (
    Experts,
    LatentAttention,
    ModelShape,
    NoCache,
    Quantisation,
    SlidingWindow,
)


def _model(  # noqa: PLR0913 (one row of a table)
    name: str,
    architecture: str,
    sizes: tuple[int, int, int, int, int],
    intermediate_size: int,
    vocabulary: int,
    max_context: int,
    parameters: int,
    *,
    tied: bool = False,
    dtype: str = "bfloat16",
) -> ModelShape:
    """`sizes` are layers, hidden size, heads, KV heads, and the length of one head's vector."""
    layers, hidden_size, heads, kv_heads, head_dim = sizes
    return ModelShape(
        name,
        source=f"config.json of {name}",
        architecture=architecture,
        layers=layers,
        hidden_size=hidden_size,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=vocabulary,
        max_context=max_context,
        intermediate_size=intermediate_size,
        tied_embeddings=tied,
        parameters=parameters,
        dtype=dtype,
    )


def _llama(name: str, sizes: tuple[int, int, int, int, int], wide: int, parameters: int) -> ModelShape:
    small = sizes[1] < 4096  # noqa: PLR2004 (the 1B and 3B models share the two embeddings)
    return _model(f"meta-llama/{name}", "llama", sizes, wide, 128256, 131072, parameters, tied=small)


def _qwen(name: str, sizes: tuple[int, int, int, int, int], wide: int, parameters: int) -> ModelShape:
    small = sizes[1] < 2048  # noqa: PLR2004 (as above; these have a smaller table of embeddings)
    vocabulary = 151936 if small else 152064
    return _model(f"Qwen/{name}", "qwen2", sizes, wide, vocabulary, 32768, parameters, tied=small)


def _qwen3(name: str, sizes: tuple[int, int, int, int, int], wide: int, parameters: int) -> ModelShape:
    return _model(f"Qwen/{name}", "qwen3", sizes, wide, 151936, 40960, parameters)


def _gemma(name: str, sizes: tuple[int, int, int, int, int], wide: int, parameters: int) -> ModelShape:
    shape = _model(f"google/{name}", "gemma2", sizes, wide, 256000, 8192, parameters, tied=True)
    return evolve(shape, attention=SlidingWindow(4096, sizes[0] // 2))


_PHI = (32, 3072, 32, 32, 96)
_MISTRAL = (32, 4096, 32, 8, 128)
_8B, _70B = (32, 4096, 32, 8, 128), (80, 8192, 64, 8, 128)

_MODELS = (
    _llama("Llama-3.1-8B", _8B, 14336, 8_030_261_248),
    _llama("Llama-3.1-8B-Instruct", _8B, 14336, 8_030_261_248),
    _llama("Llama-3.1-70B", _70B, 28672, 70_553_706_496),
    _llama("Llama-3.1-70B-Instruct", _70B, 28672, 70_553_706_496),
    _llama("Llama-3.3-70B-Instruct", _70B, 28672, 70_553_706_496),
    _llama("Llama-3.2-1B", (16, 2048, 32, 8, 64), 8192, 1_235_814_400),
    _llama("Llama-3.2-1B-Instruct", (16, 2048, 32, 8, 64), 8192, 1_235_814_400),
    _llama("Llama-3.2-3B", (28, 3072, 24, 8, 128), 8192, 3_212_749_824),
    _llama("Llama-3.2-3B-Instruct", (28, 3072, 24, 8, 128), 8192, 3_212_749_824),
    _qwen("Qwen2.5-0.5B-Instruct", (24, 896, 14, 2, 64), 4864, 494_032_768),
    _qwen("Qwen2.5-1.5B-Instruct", (28, 1536, 12, 2, 128), 8960, 1_543_714_304),
    _qwen("Qwen2.5-7B-Instruct", (28, 3584, 28, 4, 128), 18944, 7_615_616_512),
    _qwen("Qwen2.5-14B-Instruct", (48, 5120, 40, 8, 128), 13824, 14_770_033_664),
    _qwen("Qwen2.5-32B-Instruct", (64, 5120, 40, 8, 128), 27648, 32_763_876_352),
    _qwen("Qwen2.5-72B-Instruct", (80, 8192, 64, 8, 128), 29568, 72_706_203_648),
    _qwen3("Qwen3-8B", (36, 4096, 32, 8, 128), 12288, 8_190_735_360),
    _qwen3("Qwen3-32B", (64, 5120, 64, 8, 128), 25600, 32_762_123_264),
    evolve(
        _qwen3("Qwen3-30B-A3B", (48, 2048, 32, 4, 128), 6144, 30_532_122_624),
        architecture="qwen3_moe",
        experts=Experts(128, 8, 768),
    ),
    _gemma("gemma-2-2b-it", (26, 2304, 8, 4, 256), 9216, 2_614_341_888),
    _gemma("gemma-2-9b-it", (42, 3584, 16, 8, 256), 14336, 9_241_705_984),
    _gemma("gemma-2-27b-it", (46, 4608, 32, 16, 128), 36864, 27_227_128_320),
    _model("mistralai/Mistral-7B-Instruct-v0.3", "mistral", _MISTRAL, 14336, 32768, 32768, 7_248_023_552),
    evolve(
        _model(
            "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral", _MISTRAL, 14336, 32000, 32768, 46_702_792_704
        ),
        experts=Experts(8, 2),
    ),
    evolve(
        _model("microsoft/Phi-3-mini-4k-instruct", "phi3", _PHI, 8192, 32064, 4096, 3_821_079_552),
        attention=SlidingWindow(2047, 32),
    ),
    _model("microsoft/Phi-3-mini-128k-instruct", "phi3", _PHI, 8192, 32064, 131072, 3_821_079_552),
    evolve(
        _model(
            "deepseek-ai/DeepSeek-V3",
            "deepseek_v3",
            (61, 7168, 128, 128, 192),
            18432,
            129280,
            163840,
            671_026_419_200,
        ),
        experts=Experts(256, 8, 2048, shared=1, dense_layers=3),
        attention=LatentAttention(512, 64, query_rank=1536, nope_dim=128, value_dim=128),
        quantisation=Quantisation("fp8", 8, 128),
    ),
    evolve(
        _model(
            "sentence-transformers/all-MiniLM-L6-v2",
            "bert",
            (6, 384, 12, 12, 32),
            1536,
            30522,
            512,
            22_713_216,
            dtype="float32",
        ),
        attention=NoCache(),
    ),
    evolve(
        _model(
            "nomic-ai/nomic-embed-text-v1.5",
            "nomic_bert",
            (12, 768, 12, 12, 64),
            3072,
            30528,
            8192,
            136_731_648,
            dtype="float32",
        ),
        attention=NoCache(),
    ),
)

_LONGEST_NAME = 200
_ALIKE = 0.9
"""How alike a misspelling is; a publisher's own fine-tune is less so."""

_BY_NAME = {shape.name.lower(): shape for shape in _MODELS}
_BY_NAME |= {shape.name.partition("/")[2].lower(): shape for shape in _MODELS}
_BY_NAME |= {
    f"meta-llama/meta-{shape.name.partition('/')[2]}".lower(): shape
    for shape in _MODELS
    if "Llama-3.1" in shape.name
}


def known_model(name: str) -> ModelShape | None:
    """The shape of a well-known model by its name on Hugging Face, with or without the organisation.

    >>> known_model("meta-llama/Llama-3.1-8B-Instruct").kv_heads
    8
    >>> known_model("llama-3.1-8b-instruct").name
    'meta-llama/Llama-3.1-8B-Instruct'
    >>> known_model("somebody/a-fine-tune") is None
    True
    """
    return _BY_NAME.get(name.strip().lower())


def nearest_model(name: str, candidates: Iterable[str] | None = None) -> str | None:
    """The well-known model that a misspelt name was surely meant to be.

    Nearly the same letters and exactly the same numbers: another size or version is another model.

    >>> nearest_model("meta-lama/Llama-3.1-8B-Instruct")
    'meta-llama/Llama-3.1-8B-Instruct'
    >>> nearest_model("Qwen/Qwen2.5-3B-Instruct") is None
    True
    """
    if len(name) > _LONGEST_NAME:
        return None
    from difflib import get_close_matches

    def numbers(text: str) -> list[str]:
        return re.findall(r"\d+", text)

    alike: dict[str, str] = {}
    for known in known_models() if candidates is None else candidates:
        if numbers(known) == numbers(name):
            alike |= {known.lower(): known, known.rpartition("/")[2].lower(): known}
    found = get_close_matches(name.strip().lower(), alike, n=1, cutoff=_ALIKE)
    return alike[found[0]] if found else None


def known_models() -> tuple[str, ...]:
    """The names of all well-known models."""
    return tuple(shape.name for shape in _MODELS)
