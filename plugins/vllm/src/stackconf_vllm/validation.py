"""What is wrong with a configuration beyond what its class can express."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stackconf import Issue
from stackconf_models import Quantisation, choose_dtype, supports
from stackconf_remote.addresses import address_issues
from stackconf_remote.network import is_this_machine
from stackconf_vllm.config import ENGINE_SETTINGS, EngineSettings, RemoteVllmConfig, server_address
from stackconf_vllm.sizing import DTYPES, QUANTISATIONS, WHILE_LOADING, Sizing
from stackconf_vllm.units import as_devices

WEIGHTS_ONLY = frozenset({"fp8", "mxfp4", "nvfp4"})
"""Formats that vLLM can unpack where a card does not compute with them."""
UNPACKED_FROM = (8, 0)
"""Source: https://docs.vllm.ai/en/latest/features/quantization/fp8.html; newer versions may do with less."""


def issues(user_config: Mapping[str, object], config: EngineSettings) -> Iterator[Issue]:
    """Everything about `config` that a person should know before it is applied."""
    if isinstance(config, RemoteVllmConfig):
        operators = None if config.base_url is None else server_address(config.base_url)
        yield from address_issues(user_config, config, operators)
        if not config.is_here:
            yield from _about_unused(config)
            return
        yield from _about_the_file(config)
    yield from _about_fit(config, config.told)
    yield from _about_formats(config, config.told)
    yield from _about_limits(config, config.told)


def _about_unused(config: RemoteVllmConfig) -> Iterator[Issue]:
    names = (*ENGINE_SETTINGS[1:], "model_path", "health_url", "engine_version", "engine_args")
    for name in names:
        if getattr(config, name):
            yield Issue(
                "has no effect: this vLLM is not configured by stackconf",
                level="warning",
                path=name,
                hint="set config_file if it runs on this machine",
            )


def _about_the_file(config: RemoteVllmConfig) -> Iterator[Issue]:
    if config.address is not None and not is_this_machine(config.address):
        yield Issue(
            f"vLLM at {config.address} is sized for this machine's cards, for config_file is on it",
            level="warning",
            path="url",
            hint="if it runs elsewhere, remove config_file; another name of this machine is fine",
        )
    if config.restart_command is None:
        yield Issue(
            "vLLM reads its file only at its start, and nothing restarts it",
            level="warning",
            path="config_file",
            hint="set restart_command, such as [systemctl, restart, vllm]",
        )
    if config.visible_devices is not None and config.environment_file is None:
        yield Issue(
            f"vLLM takes other cards unless its service has CUDA_VISIBLE_DEVICES={config.visible_devices}",
            level="warning",
            path="visible_devices",
            hint="set environment_file and let the service read it, or set visible_devices to null "
            "where the service has that already",
        )
    if config.model_path is not None and config.model is None:
        yield Issue(
            "the model has no name to be asked for by", path="model_path", hint="set model to its name"
        )


def _about_fit(config: EngineSettings, told: Sizing) -> Iterator[Issue]:
    if told.problem:
        chosen = config.tensor_parallel_size is not None and config.max_model_len is not None
        yield Issue(
            told.problem if told.problem.startswith("does not fit") else f"does not fit: {told.problem}",
            # Whoever set both may know better than an estimate.
            level="error" if told.certain or not chosen else "warning",
            path=_path_of_fit(config),
            hint=told.advice,
        )
    elif told.unknown and (config.model or config.model_path):
        unsized = any(unit.memory_bytes is None for unit in config.devices or ())
        yield Issue(
            f"its sizes are not derived: {told.unknown}",
            level="warning",
            path="model",
            hint="set devices, with the memory_bytes that vLLM may use" if unsized else "",
        )


def _path_of_fit(config: EngineSettings) -> str:
    for name in ("max_model_len", "tensor_parallel_size"):
        if getattr(config, name) is not None:
            return name
    return "model"


def _about_formats(config: EngineSettings, told: Sizing) -> Iterator[Issue]:
    cards, shape = as_devices(config.devices or ()), told.shape
    if not cards or shape is None:
        return
    card = cards[0]
    best = choose_dtype(shape, card)
    wanted = DTYPES.get(config.dtype or "", config.dtype)
    if wanted == "bfloat16" and best.value in {"float16", "float32"} and shape.dtype != "float16":
        yield Issue(best.reason, path="dtype", hint=f"use {best.value}, or leave it unset")
    method = shape.quantisation
    if config.quantization is not None:
        method = QUANTISATIONS.get(config.quantization, Quantisation(config.quantization))
    if method is None:
        return
    able = supports(method, card)
    if able.value is False:
        path = "model" if config.quantization is None else "quantization"
        weights_only = method.method in WEIGHTS_ONLY
        hint = "leave it unset" if path == "quantization" else "name a model that is stored otherwise"
        if weights_only and (card.compute_capability or (0, 0)) >= UNPACKED_FROM:
            hint = "vLLM unpacks such weights there: less memory, not faster"
        yield Issue(able.reason, level="warning" if weights_only else "error", path=path, hint=hint)
    if config.quantization is None:
        return
    stored = shape.quantisation.method if shape.quantisation else None
    if stored != method.method and config.quantization not in WHILE_LOADING:
        how = "is not quantised" if stored is None else f"is stored as {stored}"
        yield Issue(
            f"{shape.name} {how}, and vLLM cannot make {config.quantization} of it while loading",
            path="quantization",
            hint=f"name a model that is published so, or use {' or '.join(sorted(WHILE_LOADING))}",
        )


def _about_limits(config: EngineSettings, told: Sizing) -> Iterator[Issue]:
    longest = told.shape.max_context if told.shape else None
    if longest is not None and config.max_model_len is not None and config.max_model_len > longest:
        yield Issue(
            f"{config.max_model_len} is longer than the model's own context",
            path="max_model_len",
            hint=f"use at most {longest}",
        )
    tokens, sequences = config.max_num_batched_tokens, config.max_num_seqs
    if tokens is not None and sequences is not None and tokens < sequences:
        yield Issue(
            f"{tokens} tokens at once cannot serve {sequences} sequences",
            path="max_num_batched_tokens",
            hint=f"use at least {sequences}, or fewer sequences",
        )
    limit = config.max_model_len
    if limit is not None and config.max_tokens > limit:
        yield Issue(
            f"{config.max_tokens} generated tokens do not fit into a context of {limit}",
            level="warning",
            path="max_tokens",
            hint=f"use less than {limit}",
        )
