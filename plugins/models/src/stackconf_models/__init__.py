"""What serving plugins share: models' shapes, memory formulas, and engines that are restarted.

No provider: see the README for what each name is for.
"""

from __future__ import annotations

from stackconf_models.cache import cached_model
from stackconf_models.devices import Device, devices
from stackconf_models.engine import Engine, EngineFailed, put_in_place
from stackconf_models.find import find_model
from stackconf_models.fit import Fit, Need, Serving, allowed_tp, choose_tp, fit, tp_problem
from stackconf_models.folder import read_folder
from stackconf_models.gguf import read_gguf
from stackconf_models.known import known_model, known_models, nearest_model
from stackconf_models.llama_cpp import LlamaCppFit, llama_cpp_fit
from stackconf_models.memory import (
    KvCache,
    activation_bytes,
    kv_cache,
    parameters,
    weight_bytes,
    weights_on_each,
)
from stackconf_models.precision import choose_dtype, supports
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
from stackconf_models.vllm import VllmDefaults, start_problem, vllm_defaults

__all__ = [
    "Attention",
    "Device",
    "Engine",
    "EngineFailed",
    "Experts",
    "Fit",
    "FullAttention",
    "KvCache",
    "LatentAttention",
    "LlamaCppFit",
    "ModelShape",
    "ModelUnreadable",
    "Need",
    "NoCache",
    "OtherAttention",
    "Quantisation",
    "Serving",
    "SlidingWindow",
    "VllmDefaults",
    "activation_bytes",
    "allowed_tp",
    "cached_model",
    "choose_dtype",
    "choose_tp",
    "devices",
    "find_model",
    "fit",
    "known_model",
    "known_models",
    "kv_cache",
    "llama_cpp_fit",
    "nearest_model",
    "parameters",
    "put_in_place",
    "read_folder",
    "read_gguf",
    "start_problem",
    "supports",
    "tp_problem",
    "vllm_defaults",
    "weight_bytes",
    "weights_on_each",
]
