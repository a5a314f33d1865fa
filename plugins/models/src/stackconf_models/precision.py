"""Which number formats a card can work with, by its compute capability."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import Because, because

if TYPE_CHECKING:
    from stackconf_models.devices import Device
    from stackconf_models.shape import ModelShape, Quantisation

_BFLOAT16, _FP8, _FP4 = (8, 0), (8, 9), (10, 0)
_NOT_AS_FLOAT16 = frozenset({"gemma2", "gemma3", "gemma3_text", "glm4", "plamo2"})
"""Numerically unstable in 16-bit floats. Source: vLLM `config/model.py`, `_FLOAT16_NOT_SUPPORTED_MODELS`."""
_LEAST = {
    "fp8": (_FP8, "FP8 arithmetic"),
    "nvfp4": (_FP4, "FP4 arithmetic"),
    "mxfp4": (_FP4, "FP4 arithmetic"),
    "awq": ((7, 5), "AWQ"),
    "gptq": ((6, 0), "GPTQ"),
    "bitsandbytes": ((7, 0), "bitsandbytes"),
}


def choose_dtype(shape: ModelShape, device: Device) -> Because[str | None]:
    """The type that unquantised values are computed in: `bfloat16`, `float16` or `float32`.

    bfloat16 needs compute capability 8.0; below it models run in float16, but for those that vLLM
    refuses in it. Source: vLLM `platforms/cuda.py` and `config/model.py`.

    >>> from stackconf_models import Device, known_model
    >>> choose_dtype(known_model("Llama-3.1-8B"), Device("Tesla T4", compute_capability=(7, 5)))
    Because(value='float16', reason='Tesla T4 (7.5) has no bfloat16, which needs 8.0')
    """
    have = device.compute_capability
    if shape.dtype == "float16":
        return because("float16", "the model's own type")
    if device.vendor != "nvidia" or have is None:
        return because(None, f"what {device} can compute with is unknown")
    if have >= _BFLOAT16:
        own = "the model's own type" if shape.dtype == "bfloat16" else f"half the memory of {shape.dtype}"
        return because("bfloat16", f"{own if shape.dtype else 'its usual type'}; {device} has it")
    lacking = f"{device} ({_version(have)}) has no bfloat16, which needs {_version(_BFLOAT16)}"
    if shape.architecture in _NOT_AS_FLOAT16:
        return because("float32", f"{lacking}, and {shape.architecture} is unstable in float16")
    return because("float16", lacking)


def supports(quantisation: Quantisation, device: Device) -> Because[bool | None]:
    """Whether a card computes with weights quantised so; `None` where that is not known.

    FP8 needs compute capability 8.9, FP4 10.0 (Blackwell), AWQ 7.5, GPTQ 6.0, bitsandbytes 7.0. An
    engine may still run FP8 and FP4 weights on older cards by unpacking them, which saves memory
    and no time. Source: `get_min_capability` of vLLM's quantisation classes.

    >>> from stackconf_models import Device, Quantisation
    >>> supports(Quantisation("fp8", 8), Device("NVIDIA L4", compute_capability=(8, 9))).value
    True
    """
    method = quantisation.method.partition("_")[0]
    have = device.compute_capability
    if method not in _LEAST:
        return because(None, f"what {quantisation} needs is not known here")
    if device.vendor != "nvidia" or have is None:
        return because(None, f"what {device} can compute with is unknown")
    least, what = _LEAST[method]
    verdict = "has" if have >= least else "lacks"
    return because(have >= least, f"{what} needs {_version(least)}; {device} {verdict} it ({_version(have)})")


def _version(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
