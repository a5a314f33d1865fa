"""The server's environment file: `NAME=value` lines.

llama-server takes its arguments from variables, too; an argument on its command line beats them, and a
variable that it does not know is ignored (`tools/server/README.md`, `common/arg.cpp`). The file is what
systemd's `EnvironmentFile=`, `docker run --env-file` and a shell's `set -a; . FILE` all read alike: no
quotes and no `$`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf_llama_cpp.builds import LOAD_MODE, at_least

if TYPE_CHECKING:
    from stackconf_llama_cpp.config import LlamaCppServerConfig

HEADER = "# Written by stackconf; what is changed here is lost with the next apply.\n"
_VARIABLES = {
    "model_path": "LLAMA_ARG_MODEL",
    "model": "LLAMA_ARG_ALIAS",
    "n_gpu_layers": "LLAMA_ARG_N_GPU_LAYERS",
    "ctx_size": "LLAMA_ARG_CTX_SIZE",
    "parallel": "LLAMA_ARG_N_PARALLEL",
    "kv_unified": "LLAMA_ARG_KV_UNIFIED",
    "batch_size": "LLAMA_ARG_BATCH",
    "ubatch_size": "LLAMA_ARG_UBATCH",
    "threads": "LLAMA_ARG_THREADS",
    "flash_attn": "LLAMA_ARG_FLASH_ATTN",
    "cache_type_k": "LLAMA_ARG_CACHE_TYPE_K",
    "cache_type_v": "LLAMA_ARG_CACHE_TYPE_V",
    "split_mode": "LLAMA_ARG_SPLIT_MODE",
    "main_gpu": "LLAMA_ARG_MAIN_GPU",
    "tensor_split": "LLAMA_ARG_TENSOR_SPLIT",
    "cache_ram": "LLAMA_ARG_CACHE_RAM",
}


def variables(config: LlamaCppServerConfig) -> dict[str, str]:
    """What stands in the file, by the names of llama-server's variables."""
    given = {name: getattr(config, field) for field, name in _VARIABLES.items()}
    named = {name: _text(value) for name, value in given.items() if value is not None}
    named |= _loading(config)
    if config.n_gpu_layers is not None or config.ctx_size is not None:
        # What the server would change by itself is what was computed here.
        named["LLAMA_ARG_FIT"] = "off"
    if config.port is not None:
        named["LLAMA_ARG_PORT"] = str(config.port)
    named |= _devices(config)
    return named | {name: _text(value) for name, value in config.engine_env.items()}


def file_text(config: LlamaCppServerConfig) -> str:
    """The text of the file.

    >>> from stackconf_llama_cpp.config import LlamaCppServerConfig
    >>> config = LlamaCppServerConfig(config_file="/etc/l.env", model="tiny", threads=4, ctx_size=8192)
    >>> print(file_text(config))
    # Written by stackconf; what is changed here is lost with the next apply.
    LLAMA_ARG_ALIAS=tiny
    LLAMA_ARG_CTX_SIZE=8192
    LLAMA_ARG_BATCH=2048
    LLAMA_ARG_UBATCH=512
    LLAMA_ARG_THREADS=4
    LLAMA_ARG_CACHE_TYPE_K=f16
    LLAMA_ARG_CACHE_TYPE_V=f16
    LLAMA_ARG_FIT=off
    LLAMA_ARG_PORT=8080
    <BLANKLINE>
    """
    return HEADER + "".join(f"{name}={value}\n" for name, value in variables(config).items())


def _loading(config: LlamaCppServerConfig) -> dict[str, str]:
    """`--load-mode`, or the two options before it; both where the build is not known."""
    named: dict[str, str] = {}
    if config.mlock is None and config.no_mmap is None:
        return named
    if config.build is None or at_least(config.build, LOAD_MODE):
        mode = "mlock" if config.mlock else "none" if config.no_mmap else "mmap"
        named["LLAMA_ARG_LOAD_MODE"] = mode
    if not at_least(config.build, LOAD_MODE):
        # A variable that begins with NO counts as soon as it is there, whatever it says.
        named |= {"LLAMA_ARG_MLOCK": "true"} if config.mlock else {}
        named |= {"LLAMA_ARG_NO_MMAP": "true"} if config.no_mmap else {}
    return named


def _devices(config: LlamaCppServerConfig) -> dict[str, str]:
    """The cards that are this server's, in the order that `tensor_split` counts by."""
    listed = config.machine.cards or ()
    if not listed or any(card.vendor != "nvidia" for card in listed):
        return {}
    if all(card.uuid is not None for card in listed):
        return {"CUDA_VISIBLE_DEVICES": ",".join(str(card.uuid) for card in listed)}
    # CUDA puts the fastest card first; the driver's order is the one of the PCI bus.
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if len(listed) > 1 else {}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(f"{each:g}" for each in value)
    return str(value)
