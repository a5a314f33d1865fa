"""What can be configured about vLLM.

The classes accept what every upstream version accepted. `remote::vllm`: `url`, `max_tokens`,
`api_token`, `tls_verify` (0.2.12), `refresh_models` (0.2.23), `allowed_models`, `auth_credential`
(0.3), `base_url`, `network` (0.6), `fairness_header_attribute` (OGX 1.5). `inline::vllm`, which 0.2.23
no longer has: `tensor_parallel_size`, `max_tokens`, `max_model_len`, `max_num_seqs`, `enforce_eager`,
`gpu_memory_utilization` (0.2.12). The rest is stackconf's own.

The sizes depend on the model and on each other, whoever set them. So the hardware gives only
`devices`, and the class itself computes what is left unset, each value with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from attrs import evolve
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
from stackconf_models.cache import is_model_name
from stackconf_remote.network import (
    Credential,
    NetworkConfig,
    Strict,
    TlsConfig,
    empty_as_none,
    text_as_bool,
)
from stackconf_remote.network import server_address as address_of
from stackconf_vllm.sizing import Asked, Sizing, size
from stackconf_vllm.units import as_devices

DEFAULT_URL = "http://localhost:8000/v1"
PLACEHOLDER = "fake"
"""What upstream's templates give as a token where none is needed."""
SIZES = (
    "tensor_parallel_size",
    "dtype",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
)
ENGINE_SETTINGS = (
    "model",
    "tensor_parallel_size",
    "dtype",
    "quantization",
    "gpu_memory_utilization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
)
"""The fields that vLLM's own arguments have too; theirs with dashes."""
UPSTREAM_INLINE = {
    "tensor_parallel_size": 1,
    "max_model_len": 4096,
    "max_num_seqs": 4,
    "gpu_memory_utilization": 0.3,
}
"""The defaults of 0.2.12's `VLLMConfig`."""
UPSTREAM_REASON = "upstream's own default; set model for what it and the cards allow"
NOT_HERE = "not used: vLLM is on this machine only where config_file is set"


def server_address(url: str) -> str:
    """The address of the server behind `url`: without a trailing slash and without `/v1`.

    Raises `ValueError` with what to write instead.

    >>> server_address("http://localhost:8000/v1/")
    'http://localhost:8000'
    >>> server_address("localhost:8000")
    Traceback (most recent call last):
    ...
    ValueError: not an http:// or https:// address; write it like http://localhost:8000/v1
    """
    return address_of(url, example=DEFAULT_URL, credential="api_token")


def _checked_address(url: str) -> str:
    server_address(url)
    return url.strip()


def _absolute(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or not path.isprintable():
        raise ValueError("not an absolute path; write it like /etc/vllm/server.yaml")
    return path


def _version(text: str) -> str:
    if not re.match(r"v?\d{1,4}\.\d{1,4}", text):
        raise ValueError("not a version of vLLM; write it like 0.22.1")
    return text


def _plain_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    dashed = {name.replace("_", "-") for name in arguments}
    secret = dashed & {"api-key", "hf-token"}
    if secret:
        raise ValueError(
            f"{min(secret)} is a secret and the file is not; set VLLM_API_KEY or HF_TOKEN for it"
        )
    own = {name for name in (*ENGINE_SETTINGS, "served-model-name") if name.replace("_", "-") in dashed}
    if own:
        raise ValueError(f"{min(own)} is a setting of its own; set it there")
    bad = next((name for name in arguments if not re.fullmatch(r"[a-z][a-z0-9_-]*", name)), None)
    if bad is not None:
        raise ValueError(f"{bad!r} is no name of an argument; write it without leading dashes")
    return arguments


def _model_name(text: str) -> str:
    if not is_model_name(text):
        raise ValueError(
            "not a model's name; write it like meta-llama/Llama-3.1-8B-Instruct, and a folder into model_path"
        )
    return text


Address = Annotated[str, AfterValidator(_checked_address)]
Version = Annotated[
    str | None, BeforeValidator(empty_as_none), AfterValidator(lambda text: text and _version(text))
]
FilePath = Annotated[str | None, BeforeValidator(empty_as_none), AfterValidator(lambda v: v and _absolute(v))]
Argument = str | int | float | bool | list[str]


class Unit(Strict):
    """Devices of one kind: cards, or MIG instances."""

    name: str | None = Field(None, description="As the driver calls it")
    count: int = Field(1, ge=1, le=1024, description="How many there are")
    memory_bytes: int | None = Field(None, ge=1, description="Memory of each, all of it")
    share: float = Field(1.0, gt=0, le=1, description="The part of each that is not another provider's")
    compute_capability: str | None = Field(None, pattern=r"^\d{1,3}\.\d{1,3}$", description="Such as 8.9")
    part_of_card: bool = Field(False, description="MIG instances, which cannot share a model")
    vendor: str = Field("nvidia", description="As stackconf calls it")

    @property
    def capability(self) -> tuple[int, int] | None:
        """The compute capability as numbers."""
        if self.compute_capability is None:
            return None
        major, minor = self.compute_capability.split(".")
        return int(major), int(minor)


class EngineSettings(Strict):
    """What decides the sizes of an engine on this machine, and the sizes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    max_tokens: int = user_field(
        4096, update="in_place", ge=1, description="The most tokens that are generated for one request"
    )
    model: Annotated[
        str | None, BeforeValidator(empty_as_none), AfterValidator(lambda text: text and _model_name(text))
    ] = user_field(
        None,
        max_length=256,
        description="The model served, by its name on Hugging Face; the sizes are computed for it",
    )
    model_path: FilePath = Field(
        None, description="The folder with the model's files on this machine, instead of its name"
    )
    engine_version: Version = Field(
        None, description="vLLM's version, such as 0.22.1: its own defaults depend on it"
    )
    devices: list[Unit] | None = Field(
        None, description="What the engine may compute on; from the hardware, or set where it may use less"
    )
    tensor_parallel_size: int | None = user_field(
        None,
        ge=1,
        le=1024,
        description="GPUs that share the model; unset: the fewest that give the longest context",
    )
    dtype: Annotated[str | None, BeforeValidator(empty_as_none)] = user_field(
        None,
        pattern="^(auto|half|float16|bfloat16|float|float32)$",
        description="What unquantised values are computed in; unset: by the card and the model",
    )
    quantization: Annotated[str | None, BeforeValidator(empty_as_none)] = user_field(
        None, pattern=r"^[a-z0-9_-]{1,40}$", description="vLLM's method; unset: as the model is stored"
    )
    gpu_memory_utilization: float | None = user_field(
        None,
        gt=0,
        le=1,
        claims="accelerator_memory_fraction",
        description="The share of each card's whole memory; unset: vLLM's own default x its share",
    )
    max_model_len: int | None = user_field(
        None, ge=1, le=2**27, description="Context length in tokens; unset: the most that fits"
    )
    max_num_seqs: int | None = user_field(
        None, ge=1, le=65536, description="Sequences at once; unset: vLLM's own default for the card"
    )
    max_num_batched_tokens: int | None = user_field(
        None, ge=1, le=2**24, description="Tokens processed at once; unset: vLLM's own default for the card"
    )
    _told: Sizing = PrivateAttr(default_factory=Sizing)

    @property
    def told(self) -> Sizing:
        """What was derived, and what does not fit."""
        return self._told

    @property
    def stackconf_reasons(self) -> Mapping[str, str]:
        """Why each derived value is what it is, or why there is none; `plan` and `explain` show it."""
        return self._told.reasons

    @property
    def stackconf_accelerators(self) -> int | None:
        """How many of the devices it computes on; `None` where that is not known."""
        return self.tensor_parallel_size

    @property
    def is_here(self) -> bool:
        """Whether the engine runs on this machine, so that its hardware says something about it."""
        raise NotImplementedError

    @property
    def asked(self) -> Asked:
        """What is set; the model by where its files are, if that is known."""
        given = {name: getattr(self, name) for name in (*SIZES, "quantization", "engine_version")}
        return Asked(model=self.model_path or self.model, **given)

    @model_validator(mode="after")
    def _sized(self) -> EngineSettings:
        if not self.is_here:
            self._told = Sizing(reasons={"devices": NOT_HERE})
            self.__dict__.update(devices=None)
            return self
        told = size(self.asked, None if self.devices is None else as_devices(self.devices))
        self._told = told
        self.__dict__.update(told.values)
        return self


class RemoteVllmConfig(EngineSettings):
    """A vLLM server and, where `config_file` is set, how it is configured and restarted.

    `url` decides where the server is. Where only `base_url` is given, `url` becomes that:

    >>> RemoteVllmConfig(base_url="http://gpu-box:8000/v1").address
    'http://gpu-box:8000'
    >>> RemoteVllmConfig().address is None
    True
    """

    url: Annotated[Address | None, BeforeValidator(empty_as_none)] = user_field(
        None, update="reload", description="Where vLLM listens, http(s)://host:port/v1"
    )
    base_url: Annotated[Address | None, BeforeValidator(empty_as_none)] = Field(
        None, description="The same, as newer versions call it; url decides where both are given"
    )
    api_token: Credential = Field(
        None,
        validation_alias=AliasChoices("api_token", "auth_credential"),
        description="Sent as a bearer token; `fake` counts as none",
    )
    tls_verify: Annotated[
        bool | str | None, BeforeValidator(text_as_bool), BeforeValidator(empty_as_none)
    ] = Field(None, description="Older form of network.tls.verify: true, false, or the path of a CA file")
    network: NetworkConfig | None = Field(None, description="TLS, timeouts and headers")
    allowed_models: list[str] | None = Field(None, description="Models that may be registered; unset: all")
    refresh_models: bool = Field(False, description="Whether the running provider refreshes its model list")
    fairness_header_attribute: str | None = Field(
        None, description="User attribute that the running provider sends as x-gateway-inference-fairness-id"
    )

    config_file: FilePath = Field(
        None,
        description="vLLM's own YAML file (`vllm serve --config`) on this machine; set: stackconf writes it",
    )
    restart_command: list[str] | None = Field(
        None, min_length=1, description="Program and arguments that restart vLLM, without a shell"
    )
    restart_timeout: PositiveFloat = Field(
        60.0, allow_inf_nan=False, description="Seconds that the restart command may take"
    )
    health_url: Annotated[Address | None, BeforeValidator(empty_as_none)] = Field(
        None, description="What answers 200 when vLLM is well; unset: /health of url"
    )
    health_timeout: PositiveFloat = Field(
        200.0, allow_inf_nan=False, description="Seconds to wait for vLLM after the restart, model and all"
    )
    visible_devices: Annotated[str | None, BeforeValidator(empty_as_none)] = Field(
        None,
        pattern=r"^[A-Za-z0-9/-]+(,[A-Za-z0-9/-]+)*$",
        description="What CUDA_VISIBLE_DEVICES of vLLM's service must say; from the hardware",
    )
    environment_file: FilePath = Field(
        None,
        description="File with the service's environment, such as systemd's EnvironmentFile= names; set: "
        "stackconf writes CUDA_VISIBLE_DEVICES into it",
    )
    engine_args: dict[str, Argument] = Field(
        default_factory=dict, description="Further arguments of `vllm serve` for the file, such as port: 8000"
    )

    @model_validator(mode="before")
    @classmethod
    def _url_of_base_url(cls, data: Any) -> Any:
        if not isinstance(data, dict) or empty_as_none(data.get("url")) is not None:
            return data
        given = empty_as_none(data.get("base_url"))
        if given is None and empty_as_none(data.get("config_file")) is not None:
            given = DEFAULT_URL
        return data if not isinstance(given, str) else {**data, "url": given}

    @model_validator(mode="after")
    def _managed(self) -> RemoteVllmConfig:
        if self.restart_command is not None and self.config_file is None:
            raise ValueError("restart_command without config_file restarts for nothing; set config_file")
        if self.environment_file is not None and self.config_file is None:
            raise ValueError("environment_file is for a vLLM on this machine; set config_file")
        if self.environment_file is not None and self.environment_file == self.config_file:
            raise ValueError("environment_file and config_file are two files; name another one")
        if not self.is_here:
            self.__dict__.update(visible_devices=None)
        _plain_arguments(self.engine_args)
        return self

    @property
    def stackconf_reasons(self) -> Mapping[str, str]:
        """Also of the address."""
        given = "as base_url says" if self.base_url is not None else "where `vllm serve` listens by itself"
        return {**super().stackconf_reasons, "url": given}

    @property
    def is_here(self) -> bool:
        """Only the operator can say so, by naming its file."""
        return self.config_file is not None

    @property
    def address(self) -> str | None:
        """The server's address, without a trailing slash or `/v1`."""
        return None if self.url is None else server_address(self.url)

    @property
    def token(self) -> str | None:
        """The credential, where it is one."""
        text = self.api_token.get_secret_value().strip() if self.api_token else ""
        return text if text and text != PLACEHOLDER else None

    @property
    def tls(self) -> TlsConfig | None:
        """How an https server is trusted, in either form."""
        if self.network is not None and self.network.tls is not None:
            return self.network.tls
        return None if self.tls_verify is None else TlsConfig(verify=self.tls_verify)

    @property
    def arguments(self) -> dict[str, object]:
        """What stands in vLLM's file, by the long names of its arguments."""
        named = {name.replace("_", "-"): getattr(self, name) for name in ENGINE_SETTINGS}
        if self.model_path is not None:
            named |= {"model": self.model_path, "served-model-name": self.model}
        given = {name: value for name, value in named.items() if value is not None}
        return given | {name.replace("_", "-"): value for name, value in self.engine_args.items()}


class InlineVllmConfig(EngineSettings):
    """vLLM in the stack's own process. Without a model and cards it has upstream's own defaults.

    >>> InlineVllmConfig().max_model_len, InlineVllmConfig().gpu_memory_utilization
    (4096, 0.3)
    """

    enforce_eager: bool = user_field(False, description="No CUDA graphs: less memory, slower")

    @property
    def is_here(self) -> bool:
        """Always."""
        return True

    @model_validator(mode="after")
    def _as_upstream(self) -> InlineVllmConfig:
        if self.model is None and self.model_path is None:
            own = {name: value for name, value in UPSTREAM_INLINE.items() if name in self._told.reasons}
            own |= {name: value for name, value in UPSTREAM_INLINE.items() if getattr(self, name) is None}
            reasons = {**self._told.reasons, **dict.fromkeys(own, UPSTREAM_REASON)}
            share = self.gpu_memory_utilization
            if share is not None and share < own.get("gpu_memory_utilization", 0):
                # Its share of the cards is less than what upstream takes.
                del own["gpu_memory_utilization"]
                reasons["gpu_memory_utilization"] = self._told.reasons["gpu_memory_utilization"]
            self._told = evolve(self._told, reasons=reasons)
            self.__dict__.update(own)
        return self
