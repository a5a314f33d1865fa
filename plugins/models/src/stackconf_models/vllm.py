"""What vLLM does where nothing is set, by its version and the card."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from stackconf import Because, because, size_text

if TYPE_CHECKING:
    from stackconf_models.devices import Device

GIB = 1024**3
_VERSION = re.compile(r"v?(\d{1,4})\.(\d{1,4})")
_FIRST, _LAST_90, _FIRST_92, _FIRST_160 = (0, 9), (0, 19), (0, 21), (0, 28)
_SOURCE = "vllm#17885"


@frozen
class VllmDefaults:
    """vLLM's own defaults; a `value` is `None` where it is not known, and its reason says why."""

    gpu_memory_utilization: Because[float | None]
    max_num_batched_tokens: Because[int | None]
    max_num_seqs: Because[int | None]


def vllm_defaults(
    version: str | None, device: Device | None, *, usage: Literal["server", "library"] = "server"
) -> VllmDefaults:
    """The defaults of one version of vLLM on one card. `library` is its `LLM` class.

    Memory: 0.90 of the total up to 0.19, 0.92 from 0.21 on, where CUDA graphs are counted in
    (https://github.com/vllm-project/vllm/pull/38284); of 0.20 it is not known here. Batch, from 0.9
    on: a card of 70 GiB and more that is no A100 has 8192 tokens (library 16384) and 1024 sequences,
    any other 2048 (8192) and 256; the A100 was measured
    (https://github.com/vllm-project/vllm/pull/17885). From 0.28 on a server on 160 GiB and more has
    16384 (https://github.com/vllm-project/vllm/pull/51726).

    >>> from stackconf_models import Device
    >>> h100 = Device("NVIDIA H100 80GB HBM3", 81559 * 1024**2, (9, 0))
    >>> told = vllm_defaults("0.22.1", h100)
    >>> told.gpu_memory_utilization.value, told.max_num_batched_tokens.value, told.max_num_seqs.value
    (0.92, 8192, 1024)
    >>> vllm_defaults("0.20.0", h100).gpu_memory_utilization
    Because(value=None, reason='the default of vLLM 0.20 is not known; 0.9 up to 0.19, 0.92 from 0.21 on')
    """
    number = _number(version)
    if number is None:
        unknown = "the version of vLLM is not known" if version is None else f"{version[:40]!r} is no version"
        return VllmDefaults(because(None, unknown), because(None, unknown), because(None, unknown))
    tokens, sequences = _batch(number, device, usage)
    return VllmDefaults(_utilization(number), tokens, sequences)


def _number(version: str | None) -> tuple[int, int] | None:
    match = _VERSION.match(version or "")
    return (int(match[1]), int(match[2])) if match else None


def _utilization(version: tuple[int, int]) -> Because[float | None]:
    if version <= _LAST_90:
        return because(0.9, f"vLLM's default up to {_text(_LAST_90)}")
    if version >= _FIRST_92:
        return because(0.92, f"vLLM's default from {_text(_FIRST_92)} on")
    steps = f"0.9 up to {_text(_LAST_90)}, 0.92 from {_text(_FIRST_92)} on"
    return because(None, f"the default of vLLM {_text(version)} is not known; {steps}")


def _batch(
    version: tuple[int, int], device: Device | None, usage: str
) -> tuple[Because[int | None], Because[int | None]]:
    if version < _FIRST:
        unknown: Because[int | None] = because(None, f"the default of vLLM {_text(version)} is not known")
        return unknown, unknown
    if device is None or device.memory_bytes is None:
        unknown = because(None, "the card's memory is not known, and vLLM's default depends on it")
        return unknown, unknown
    memory, library = device.memory_bytes, usage == "library"
    a100 = "a100" in (device.name or "").lower()
    why = f"vLLM's default on {device} with {size_text(memory)}"
    if memory < 70 * GIB or a100:
        why += " (an A100 counts as small; it was measured)" if a100 and memory >= 70 * GIB else ""
        return because(8192 if library else 2048, f"{why}, {_SOURCE}"), because(256, f"{why}, {_SOURCE}")
    large = library or (version >= _FIRST_160 and memory >= 160 * GIB)
    return because(16384 if large else 8192, f"{why}, {_SOURCE}"), because(1024, f"{why}, {_SOURCE}")


def start_problem(device: Device, fraction: float) -> str | None:
    """Why vLLM would refuse to start with this fraction now, or `None`.

    It wants that share of the total to be free at its start. Source: vLLM `gpu_worker.py`, "Free
    memory on device ... is less than desired GPU memory utilization".

    >>> from stackconf_models import Device
    >>> start_problem(Device("NVIDIA L4", 24 * GIB, free_bytes=12 * GIB), 0.9)
    'NVIDIA L4: 12 GiB of 24 GiB are free, but 0.9 of all are asked for; at most 0.5 can start'
    """
    total, free = device.memory_bytes, device.free_bytes
    if not total or free is None or free >= fraction * total:
        return None
    most = int(free * 100 / total) / 100
    asked = f"{size_text(free)} of {size_text(total)} are free, but {fraction:g} of all are asked for"
    return f"{device}: {asked}; at most {most:g} can start"


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
