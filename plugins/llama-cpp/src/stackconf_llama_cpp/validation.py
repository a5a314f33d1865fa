"""What is wrong with a configuration beyond what its class can express."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stackconf import Issue, size_text
from stackconf_llama_cpp.config import DEFAULT_URL, SIZES, LlamaCppServerConfig
from stackconf_llama_cpp.memory import CACHE_TYPES, padded
from stackconf_remote.addresses import address_issues
from stackconf_remote.network import is_this_machine, server_address


def issues(user_config: Mapping[str, object], config: LlamaCppServerConfig) -> Iterator[Issue]:
    """Everything about `config` that a person should know before it is applied."""
    given = config.base_url or DEFAULT_URL
    operators = server_address(given, example=DEFAULT_URL, credential="auth_credential")
    yield from address_issues(user_config, config, operators)
    if not config.is_here:
        yield from _about_unused(config)
        return
    yield from _about_the_file(config)
    yield from _about_fit(config)
    yield from _about_slots(config)
    yield from _about_cache(config)
    yield from _about_devices(config)
    yield from _about_the_machine(config)


def _about_unused(config: LlamaCppServerConfig) -> Iterator[Issue]:
    names = ("model_path", "quantization", *SIZES, "engine_version", "engine_env", "health_url")
    for name in names:
        if getattr(config, name) not in (None, {}):
            yield Issue(
                "has no effect: this server is not configured by stackconf",
                level="warning",
                path=name,
                hint="set config_file if it runs on this machine",
            )


def _about_the_file(config: LlamaCppServerConfig) -> Iterator[Issue]:
    if not is_this_machine(config.address):
        yield Issue(
            f"the server at {config.address} is sized for this machine, for config_file is on it",
            level="warning",
            path="url",
            hint="if it runs elsewhere, remove config_file; another name of this machine is fine",
        )
    if config.restart_command is None:
        yield Issue(
            "the server reads its variables only at its start, and nothing restarts it",
            level="warning",
            path="config_file",
            hint="set restart_command, such as [systemctl, restart, llama-server]",
        )
    others = ("LLAMA_ARG_HF_REPO", "LLAMA_ARG_MODEL_URL", "LLAMA_ARG_DOCKER_REPO", "LLAMA_ARG_MODELS_PRESET")
    if config.model_path is None and not any(name in config.engine_env for name in others):
        yield Issue(
            "the file does not say which model to load",
            level="warning",
            path="model_path",
            hint="set it to the .gguf file, or LLAMA_ARG_HF_REPO in engine_env",
        )


def _about_fit(config: LlamaCppServerConfig) -> Iterator[Issue]:
    told = config.told
    if told.problem:
        yield Issue(told.problem, path=_path_of_fit(config), hint=told.advice)
    elif told.unknown and (config.model or config.model_path):
        yield Issue(f"its sizes are not derived: {told.unknown}", level="warning", path="model")


def _path_of_fit(config: LlamaCppServerConfig) -> str:
    for name in ("ctx_size", "n_gpu_layers", "parallel"):
        if getattr(config, name) is not None:
            return name
    return "model_path" if config.model_path else "model"


def _about_slots(config: LlamaCppServerConfig) -> Iterator[Issue]:
    context, slots = config.ctx_size, config.parallel
    longest = config.told.shape.max_context if config.told.shape else None
    if context is not None and slots is not None and context < slots:
        yield Issue(f"{slots} slots cannot share {context} tokens", path="parallel", hint="use fewer slots")
        return
    if context is not None and longest is not None:
        each = padded(context if config.kv_unified else context // (slots or 1))
        if each > padded(longest):
            yield Issue(
                f"{each} tokens for a slot are more than the model's own {longest}, which none goes beyond",
                level="warning",
                path="ctx_size",
                hint=f"use at most {longest * (1 if config.kv_unified else slots or 1)}, or more slots",
            )
    if (
        config.batch_size is not None
        and config.ubatch_size is not None
        and config.ubatch_size > config.batch_size
    ):
        yield Issue(
            f"{config.ubatch_size} tokens cannot be computed at once when {config.batch_size} are taken",
            level="warning",
            path="ubatch_size",
            hint=f"use at most {config.batch_size}; llama.cpp does",
        )


def _about_cache(config: LlamaCppServerConfig) -> Iterator[Issue]:
    shape = config.told.shape
    for name, size in (("cache_type_k", "head_dim"), ("cache_type_v", "value_dim")):
        kind = getattr(config, name)
        if kind is None or CACHE_TYPES[kind][0] == 1:
            continue
        if name == "cache_type_v" and config.flash_attn == "off":
            yield Issue(
                f"values of type {kind} need flash attention, which is off; the server would not start",
                path=name,
                hint="use f16, or let flash_attn be on",
            )
        length = (getattr(shape, size) or shape.head_dim) if shape else None
        if length is not None and length % CACHE_TYPES[kind][0]:
            yield Issue(
                f"heads of {length} values are no multiple of its blocks of {CACHE_TYPES[kind][0]}",
                path=name,
                hint="use f16",
            )


def _about_devices(config: LlamaCppServerConfig) -> Iterator[Issue]:
    cards, shape = config.machine.cards, config.told.shape
    if cards is None:
        return
    layers = None if shape is None or shape.layers is None else shape.layers + 1
    if config.n_gpu_layers and not cards:
        yield Issue(
            "there is no accelerator that a layer could be on",
            level="warning",
            path="n_gpu_layers",
            hint="use 0",
        )
    elif layers is not None and config.n_gpu_layers is not None and config.n_gpu_layers > layers:
        yield Issue(
            f"the model has {layers - 1} layers and the output; {config.n_gpu_layers} count as {layers}",
            level="warning",
            path="n_gpu_layers",
            hint=f"use {layers}",
        )
    if cards and config.tensor_split is not None and len(config.tensor_split) > len(cards):
        yield Issue(
            f"{len(config.tensor_split)} shares for {len(cards)} device{'s' * (len(cards) > 1)}",
            path="tensor_split",
            hint="give one for each device",
        )
    if cards and config.main_gpu is not None and config.main_gpu >= len(cards):
        yield Issue(f"there is no device {config.main_gpu}", path="main_gpu", hint=f"0 to {len(cards) - 1}")


def _about_the_machine(config: LlamaCppServerConfig) -> Iterator[Issue]:
    if config.cores is not None and config.threads is not None and config.threads > config.cores:
        yield Issue(
            f"{config.threads} threads on {config.cores} usable cores wait for each other",
            level="warning",
            path="threads",
            hint=f"use at most {config.cores}",
        )
    if config.threads_batch != config.threads and config.threads_batch is not None:
        yield Issue(
            "llama-server takes no variable for it, and reads prompts with as many threads as threads says",
            level="warning",
            path="threads_batch",
            hint="leave it unset, or start the service with --threads-batch",
        )
    placed, memory = config.told.placed, config.memory_bytes
    if config.mlock and placed is not None and memory is not None and placed.host_weights > memory:
        yield Issue(
            f"{size_text(placed.host_weights)} cannot be locked in {size_text(memory)}",
            path="mlock",
            hint="use false",
        )
    spare = None if placed is None or memory is None else (memory - placed.host) // 1024**2
    if spare is not None and config.cache_ram is not None and config.cache_ram > max(0, spare):
        yield Issue(
            f"{config.cache_ram} MiB are more than the {max(0, spare)} MiB of main memory beside the model",
            level="warning",
            path="cache_ram",
            hint=f"use at most {max(0, spare)}",
        )
