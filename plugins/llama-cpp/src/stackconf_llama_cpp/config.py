"""What can be configured about llama.cpp's server.

`remote::llama-cpp-server` has upstream's settings: `base_url` (OGX 1.5, and llama-stack from 0.4 on),
`allowed_models`, `refresh_models`, `auth_credential`, `network`. The rest is stackconf's own, by the
names of llama-server's arguments.

The sizes depend on the model and on each other, whoever set them. So the hardware gives only what there
is to compute on, and the class itself computes what is left unset, each value with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PrivateAttr,
    model_validator,
)

from stackconf import user_field
from stackconf_llama_cpp.builds import build_number
from stackconf_llama_cpp.machine import Machine, as_cards
from stackconf_llama_cpp.memory import BITS
from stackconf_llama_cpp.search import Asked
from stackconf_llama_cpp.sizing import Sizing, size
from stackconf_remote.network import (
    Credential,
    NetworkConfig,
    Strict,
    empty_as_none,
    is_this_machine,
    server_address,
)

DEFAULT_URL = "http://localhost:8080/v1"
MACHINE = ("devices", "cores", "memory_bytes", "memory_limited", "swap_bytes")
"""The fields that come from the hardware."""
SIZES = (
    "n_gpu_layers",
    "ctx_size",
    "parallel",
    "kv_unified",
    "batch_size",
    "ubatch_size",
    "threads",
    "threads_batch",
    "flash_attn",
    "cache_type_k",
    "cache_type_v",
    "split_mode",
    "main_gpu",
    "tensor_split",
    "mlock",
    "no_mmap",
    "cache_ram",
    "accelerator_bytes",
)
"""The fields that are computed where nobody set them."""
NOT_HERE = "not used: the server is on this machine only where config_file is set"
OWN_VARIABLES = frozenset(
    {"LLAMA_ARG_MODEL", "LLAMA_ARG_ALIAS", "LLAMA_ARG_N_GPU_LAYERS", "LLAMA_ARG_CTX_SIZE"}
    | {"LLAMA_ARG_N_PARALLEL", "LLAMA_ARG_KV_UNIFIED", "LLAMA_ARG_BATCH", "LLAMA_ARG_UBATCH"}
    | {"LLAMA_ARG_THREADS", "LLAMA_ARG_FLASH_ATTN", "LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V"}
    | {"LLAMA_ARG_SPLIT_MODE", "LLAMA_ARG_MAIN_GPU", "LLAMA_ARG_TENSOR_SPLIT", "LLAMA_ARG_MLOCK"}
    | {"LLAMA_ARG_NO_MMAP", "LLAMA_ARG_LOAD_MODE", "LLAMA_ARG_CACHE_RAM", "CUDA_VISIBLE_DEVICES"}
)
"""Variables that a setting of its own stands for."""
SECRET_VARIABLES = frozenset({"LLAMA_API_KEY", "LLAMA_ARG_API_KEY", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"})
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9][A-Za-z0-9._:-]*)?$"
_PLAIN = re.compile(r"[A-Za-z0-9_./:,=+@%*\[\]{}()~ -]*")

CacheType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


def _address(url: str) -> str:
    server_address(url, example=DEFAULT_URL, credential="auth_credential")
    return url.strip()


def _absolute(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or not path.isprintable():
        raise ValueError("not an absolute path; write it like /etc/llama/server.env")
    return path


def _gguf(path: str) -> str:
    if not path.lower().endswith(".gguf"):
        raise ValueError("llama.cpp loads a .gguf file; of a split model, name the first part")
    return _plain(_absolute(path))


def _plain(text: str) -> str:
    """Every reader of such files takes these characters as they are; quotes and `$` are read differently."""
    if not _PLAIN.fullmatch(text):
        raise ValueError("holds a character that an environment file cannot carry everywhere")
    return text


def _build(text: str) -> str:
    if build_number(text) is None:
        raise ValueError("not a build of llama.cpp; write it like b11434, as `llama-server --version` says")
    return text


def _quantisation(label: str) -> str:
    if label.upper() not in BITS:
        raise ValueError(f"its size is unknown; one of {', '.join(BITS)}, or set model_path")
    return label.upper()


def _variables(given: dict[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        if not re.fullmatch(r"[A-Z][A-Z0-9_]{1,80}", name):
            raise ValueError(f"{name[:80]!r} is no variable of llama-server; write it like LLAMA_ARG_PORT")
        if name in SECRET_VARIABLES:
            raise ValueError(f"{name} is a secret and the file is not; set it in the service itself")
        if name in OWN_VARIABLES:
            raise ValueError(f"{name} is a setting of its own; set it there")
        _plain(str(value))
    return given


def _model_name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise ValueError(
            "not a name to be served under; write it like llama-3.1-8b, and a file into model_path"
        )
    return text


Address = Annotated[str, AfterValidator(_address)]
FilePath = Annotated[str | None, BeforeValidator(empty_as_none), AfterValidator(lambda v: v and _absolute(v))]
ModelPath = Annotated[str | None, BeforeValidator(empty_as_none), AfterValidator(lambda v: v and _gguf(v))]
Build = Annotated[str | None, BeforeValidator(empty_as_none), AfterValidator(lambda v: v and _build(v))]
Quantisation = Annotated[
    str | None, BeforeValidator(empty_as_none), AfterValidator(lambda v: v and _quantisation(v))
]
Variable = str | int | float | bool


class Unit(Strict):
    """Devices of one kind that follow each other: cards, or one MIG instance."""

    name: str | None = Field(None, description="As the driver calls it")
    count: int = Field(1, ge=1, le=1024, description="How many there are")
    memory_bytes: int | None = Field(None, ge=1, description="Memory of each")
    compute_capability: str | None = Field(None, pattern=r"^\d{1,3}\.\d{1,3}$", description="Such as 8.9")
    part_of_card: bool = Field(False, description="A MIG instance")
    unified: bool = Field(False, description="It computes in main memory")
    share: float = Field(1.0, gt=0, le=1, description="The part of main memory, where it computes in that")
    vendor: str = Field("nvidia", description="As stackconf calls it")
    uuids: list[str] | None = Field(None, description="The driver's name for each; the server sees no others")

    @property
    def capability(self) -> tuple[int, int] | None:
        """The compute capability as numbers."""
        if self.compute_capability is None:
            return None
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


class LlamaCppServerConfig(Strict):
    """A llama.cpp server and, where `config_file` is set, how it is configured and restarted.

    `url` decides where the server is. Where only `base_url` is given, `url` becomes that:

    >>> LlamaCppServerConfig(base_url="http://gpu-box:8080/v1").address
    'http://gpu-box:8080'
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    url: Annotated[Address | None, BeforeValidator(empty_as_none)] = user_field(
        None, update="reload", description="Where the server listens, http(s)://host:port/v1"
    )
    base_url: Annotated[Address | None, BeforeValidator(empty_as_none)] = Field(
        None, description="The same, as upstream calls it; url decides where both are given"
    )
    auth_credential: Credential = Field(
        None,
        validation_alias=AliasChoices("auth_credential", "api_key"),
        description="Sent as a bearer token: one of the server's --api-key",
    )
    network: NetworkConfig | None = Field(None, description="TLS, timeouts and headers")
    allowed_models: list[str] | None = Field(None, description="Models that may be registered; unset: all")
    refresh_models: bool = Field(False, description="Whether the running provider refreshes its model list")

    model: Annotated[
        str | None, BeforeValidator(empty_as_none), AfterValidator(lambda text: text and _model_name(text))
    ] = user_field(
        None,
        max_length=256,
        description="The name the model is served under; without model_path the sizes are those of this one",
    )
    model_path: ModelPath = Field(None, description="The model's .gguf file on this machine")
    quantization: Quantisation = user_field(
        None, description="How the model is stored, such as Q4_K_M, where its file is not here"
    )
    lora_scales: dict[str, float] | None = user_field(
        None,
        update="in_place",
        description="How much each adapter counts that the server has loaded, by its file's name",
    )

    n_gpu_layers: int | None = user_field(
        None,
        ge=0,
        le=100_000,
        description="Layers on devices, the output counted as one; unset: all that fit",
    )
    ctx_size: int | None = user_field(
        None,
        ge=1,
        le=2**30,
        description="Context of all slots together, in tokens; unset: the most that fits",
    )
    parallel: int | None = user_field(None, ge=1, le=1024, description="Slots: requests at once")
    kv_unified: bool | None = user_field(
        None, description="One cache for all slots, so that each may use all of it"
    )
    batch_size: int | None = user_field(None, ge=1, le=2**24, description="Tokens taken at once; unset: 2048")
    ubatch_size: int | None = user_field(
        None, ge=1, le=2**24, description="Tokens computed at once; unset: 512"
    )
    threads: int | None = user_field(
        None, ge=1, le=4096, description="Threads that generate; unset: the usable physical cores"
    )
    threads_batch: int | None = user_field(
        None,
        ge=1,
        le=4096,
        description="Threads that read a prompt, where the service is started so; unset: as threads",
    )
    flash_attn: Literal["on", "off", "auto"] | None = user_field(None, description="Flash attention")
    cache_type_k: CacheType | None = user_field(None, description="Type of the cached keys; unset: f16")
    cache_type_v: CacheType | None = user_field(None, description="Type of the cached values; unset: f16")
    split_mode: Literal["none", "layer", "row"] | None = user_field(
        None, description="How several devices share the model; unset: one if it holds it, else layers"
    )
    main_gpu: int | None = user_field(None, ge=0, le=1024, description="The device of split_mode none")
    tensor_split: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = user_field(
        None, min_length=1, max_length=1024, description="Shares of the model by device"
    )
    mlock: bool | None = user_field(None, description="Keep the weights in main memory, never swapped out")
    no_mmap: bool | None = user_field(None, description="Load the file, instead of mapping it")
    cache_ram: int | None = user_field(
        None, ge=0, le=2**30, description="Main memory for prompts that may come again, in MiB"
    )
    accelerator_bytes: int | None = Field(
        None,
        ge=1,
        description="What the server takes of a device at most; set: its sizes stay below",
        json_schema_extra={"claims": "accelerator_memory_bytes"},
    )

    engine_version: Build = Field(
        None, description="The build of llama.cpp, such as b11434: what it can and what it does by itself"
    )
    devices: list[Unit] | None = Field(
        None, description="What the server may compute on; from the hardware, or set where it may use less"
    )
    cores: int | None = Field(None, ge=1, description="Physical cores it may use; from the hardware")
    memory_bytes: int | None = Field(None, ge=1, description="Main memory it may use; from the hardware")
    memory_limited: bool | None = Field(
        None, description="Whether that is a limit, and not the machine's total; from the hardware"
    )
    swap_bytes: int | None = Field(None, ge=0, description="Swap space; from the hardware")

    config_file: FilePath = Field(
        None, description="The server's environment file on this machine; set: stackconf writes it"
    )
    restart_command: list[str] | None = Field(
        None, min_length=1, description="Program and arguments that restart the server, without a shell"
    )
    restart_timeout: PositiveFloat = Field(
        60.0, allow_inf_nan=False, description="Seconds that the restart command may take"
    )
    health_url: Annotated[Address | None, BeforeValidator(empty_as_none)] = Field(
        None, description="What answers 200 when the server is well; unset: /health of url"
    )
    health_timeout: PositiveFloat = Field(
        200.0,
        allow_inf_nan=False,
        description="Seconds to wait for the server after the restart, model and all",
    )
    engine_env: dict[str, Variable] = Field(
        default_factory=dict,
        description="Further variables for the file, such as LLAMA_ARG_ENDPOINT_METRICS: true",
    )
    _told: Sizing = PrivateAttr(default_factory=Sizing)

    @model_validator(mode="before")
    @classmethod
    def _url_of_base_url(cls, data: Any) -> Any:
        if not isinstance(data, dict) or empty_as_none(data.get("url")) is not None:
            return data
        given = empty_as_none(data.get("base_url"))
        given = DEFAULT_URL if given is None else given
        return {**data, "url": given} if isinstance(given, str) else data

    @model_validator(mode="after")
    def _managed(self) -> LlamaCppServerConfig:
        if self.restart_command is not None and self.config_file is None:
            raise ValueError("restart_command without config_file restarts for nothing; set config_file")
        if self.tensor_split is not None and not any(self.tensor_split):
            raise ValueError("tensor_split: a device must have a share above 0")
        _variables(self.engine_env)
        return self

    @model_validator(mode="after")
    def _sized(self) -> LlamaCppServerConfig:
        if not self.is_here:
            self._told = Sizing(reasons=dict.fromkeys(MACHINE, NOT_HERE))
            self.__dict__.update(dict.fromkeys(MACHINE))
            return self
        told = size(self.asked, self.machine)
        self._told = told
        self.__dict__.update(told.values)
        return self

    @property
    def told(self) -> Sizing:
        """What was derived, and what does not fit."""
        return self._told

    @property
    def stackconf_reasons(self) -> Mapping[str, str]:
        """Why each derived value is what it is, or why there is none; `plan` and `explain` show it."""
        given = "as base_url says" if self.base_url is not None else "where llama-server listens by itself"
        return {**self._told.reasons, "url": given}

    @property
    def stackconf_accelerators(self) -> int | None:
        """How many of the devices hold some of the model; `None` where that is not known."""
        placed = self._told.placed
        return None if placed is None else sum(map(bool, placed.counts))

    @property
    def is_here(self) -> bool:
        """Whether the server runs on this machine, so that its hardware says something about it.

        Only the operator can say so, by naming its file.
        """
        return self.config_file is not None

    @property
    def address(self) -> str:
        """The server's address, without a trailing slash or `/v1`."""
        return server_address(self.url or DEFAULT_URL, example=DEFAULT_URL, credential="auth_credential")

    @property
    def token(self) -> str | None:
        """The credential, where there is one."""
        text = self.auth_credential.get_secret_value().strip() if self.auth_credential else ""
        return text or None

    @property
    def build(self) -> int | None:
        """The build's number."""
        return build_number(self.engine_version)

    @property
    def machine(self) -> Machine:
        """What there is to compute with."""
        listed = None if self.devices is None else as_cards(self.devices)
        return Machine(listed, self.cores, self.memory_bytes, self.memory_limited, self.swap_bytes)

    @property
    def asked(self) -> Asked:
        """What is set; the model by where its file is, if that is known."""
        given = {name: getattr(self, name) for name in SIZES if name != "tensor_split"}
        return Asked(
            model=self.model_path or self.model,
            quantization=self.quantization,
            build=self.build,
            tensor_split=None if self.tensor_split is None else tuple(self.tensor_split),
            **given,
        )

    @property
    def port(self) -> int | None:
        """Where the server is to listen, where its address says so."""
        from urllib.parse import urlsplit

        parts = urlsplit(self.address)
        direct = parts.scheme.lower() == "http" and not parts.path.strip("/")
        return (parts.port or 80) if direct and is_this_machine(self.address) else None
