"""What can be configured about an Ollama server.

The class accepts what every upstream version accepted for `remote::ollama`: `url` (0.0.53 to
0.3), `raise_on_connect_error` (0.2.14), `refresh_models` and `allowed_models` (from 0.2.23),
`auth_credential` (from 0.3), `base_url` (from 0.4) and `network` (from 0.6). The settings of how a
model is loaded are stackconf's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PrivateAttr,
    SecretStr,
    model_validator,
)

from stackconf import user_field
from stackconf_ollama.defaults import DEVICES, as_devices
from stackconf_ollama.sizing import Asked, Sizing, size
from stackconf_remote.network import Credential, Strict, empty_as_none, is_this_machine
from stackconf_remote.network import NetworkConfig as AnyNetworkConfig
from stackconf_remote.network import server_address as address_of

DEFAULT_URL = "http://localhost:11434"
FOREVER = float("inf")

_MICRO = ("us", "\u00b5s", "\u03bcs")
_SECONDS = {"ns": 1e-9, **dict.fromkeys(_MICRO, 1e-6), "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_UNIT = "|".join(_SECONDS)
_DURATION = re.compile(rf"-?(?:\d+(?:\.\d*)?(?:{_UNIT}))+")
_DURATION_PART = re.compile(rf"(\d+(?:\.\d*)?)({_UNIT})")


def server_address(url: str) -> str:
    """The address of the server behind `url`: without a trailing slash and without `/v1`.

    `/v1` is the path under which the same server speaks OpenAI's protocol. Raises `ValueError`
    with what to write instead.

    >>> server_address("http://localhost:11434/v1/")
    'http://localhost:11434'
    >>> server_address("localhost:11434")
    Traceback (most recent call last):
    ...
    ValueError: not an http:// or https:// address; write it like http://localhost:11434
    """
    return address_of(url, example=DEFAULT_URL, credential="auth_credential")


def _checked_address(url: str) -> str:
    server_address(url)
    return url.strip()


def keep_alive_seconds(keep_alive: int | str) -> float:
    """How long a loaded model stays, in seconds; negative means for ever (`FOREVER`).

    >>> keep_alive_seconds("1h30m"), keep_alive_seconds(0), keep_alive_seconds("-1m")
    (5400.0, 0.0, inf)
    """
    if isinstance(keep_alive, int):
        return FOREVER if keep_alive < 0 else float(keep_alive)
    if keep_alive.startswith("-"):
        return FOREVER
    return sum(float(amount) * _SECONDS[unit] for amount, unit in _DURATION_PART.findall(keep_alive))


def _checked_keep_alive(value: int | str) -> int | str:
    if isinstance(value, int):
        return value
    text = value.strip()
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if _DURATION.fullmatch(text):
        return text
    raise ValueError("not a duration; write seconds (300), a Go duration (5m, 1h30m), or -1 for ever")


def _absolute(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or not path.isprintable():
        raise ValueError("not an absolute path; write it like /usr/share/ollama/.ollama/models")
    return path


def _version(text: str) -> str:
    if not re.match(r"v?\d{1,4}\.\d{1,4}", text):
        raise ValueError("not a version of Ollama; write it like 0.15.5")
    return text


Address = Annotated[str, AfterValidator(_checked_address)]
KeepAlive = Annotated[int | str, AfterValidator(_checked_keep_alive)]


class NetworkConfig(AnyNetworkConfig):
    """How the server is reached."""

    headers: dict[str, SecretStr] | None = Field(
        None,
        description="Further headers for every request; sent only to the server of base_url",
        json_schema_extra={"secret": True},
    )


class OllamaConfig(Strict):
    """An Ollama server and, where `model` is set, how that model is loaded.

    `url` decides where the server is. Where only `base_url` is given, `url` becomes its server:

    >>> OllamaConfig(base_url="http://gpu-box:11434/v1").url
    'http://gpu-box:11434'
    >>> OllamaConfig(url="http://localhost:12345").openai_url
    'http://localhost:12345/v1'
    """

    url: Address = user_field(
        DEFAULT_URL, update="reload", description="Where the Ollama server listens, http(s)://host:port"
    )
    base_url: Address | None = Field(
        None,
        description="The same server's OpenAI path, ending in /v1; decides where the server is only if "
        "url is not given, and names the one server that may see credentials",
    )

    model: Annotated[str | None, BeforeValidator(empty_as_none)] = user_field(
        None,
        update="reload",
        pattern=r"^[^\s\x00-\x1f]+$",
        max_length=512,
        description="The model to load, such as llama3.2:3b; unset: load none",
    )
    num_ctx: int | None = user_field(
        None, update="reload", ge=256, le=2**24, description="Context length in tokens; unset: the server's"
    )
    num_thread: int | None = user_field(
        None, update="reload", ge=1, le=4096, description="CPU threads of the model; unset: the server's"
    )
    num_batch: int | None = user_field(
        None, update="reload", ge=1, le=65536, description="Prompt tokens per step; unset: the server's"
    )
    num_gpu: int | None = user_field(
        None,
        update="reload",
        ge=-1,
        le=10_000,
        description="Layers put on accelerators, 0 for none; unset or -1: the server decides",
    )
    keep_alive: KeepAlive | None = user_field(
        None,
        update="in_place",
        description="How long the model stays loaded after use: seconds, 5m, or -1 for ever; unset: "
        "the server's (5m unless OLLAMA_KEEP_ALIVE says otherwise)",
    )
    models_folder: Annotated[
        str | None, BeforeValidator(empty_as_none), AfterValidator(lambda path: path and _absolute(path))
    ] = Field(
        None,
        description="Where the server keeps its models, for their sizes; unset: where it usually does",
        json_schema_extra={"update": "in_place"},
    )
    engine_version: Annotated[
        str | None, BeforeValidator(empty_as_none), AfterValidator(lambda text: text and _version(text))
    ] = Field(
        None,
        description="Ollama's version, such as 0.15.5: its own defaults depend on it",
        json_schema_extra={"update": "in_place"},
    )
    num_parallel: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="What OLLAMA_NUM_PARALLEL of the server is: each request has a context of its own",
        json_schema_extra={"update": "in_place"},
    )
    devices: list[Annotated[str, Field(pattern=DEVICES)]] | None = Field(
        None,
        description="What the server may compute on, such as 2x46068MiB; from the hardware",
        json_schema_extra={"update": "in_place"},
    )
    memory_bytes: int | None = Field(
        None,
        ge=1,
        description="Main memory that the server may use; from the hardware",
        json_schema_extra={"update": "in_place"},
    )
    load_timeout: PositiveFloat = Field(
        300.0,
        allow_inf_nan=False,
        description="Seconds to wait for the model to load; Ollama's own limit is 5 minutes",
    )

    raise_on_connect_error: bool = Field(
        True, description="Kept for the running provider; stackconf reports an unreachable server as pending"
    )
    allowed_models: list[str] | None = Field(None, description="Models that may be registered; unset: all")
    refresh_models: bool = Field(False, description="Whether the running provider refreshes its model list")
    auth_credential: Credential = Field(
        None, description="Sent as a bearer token, and only to the server of base_url"
    )
    network: NetworkConfig | None = Field(None, description="TLS, timeouts and headers")

    _told: Sizing = PrivateAttr(default_factory=Sizing)

    @property
    def told(self) -> Sizing:
        """What was derived, and what does not fit."""
        return self._told

    @property
    def stackconf_reasons(self) -> Mapping[str, str]:
        """Why each derived value is what it is, or why there is none; `plan` and `explain` show it."""
        return self._told.reasons

    @model_validator(mode="after")
    def _sized(self) -> OllamaConfig:
        if not is_this_machine(self.address):
            why = f"Ollama runs at {self.address}, of which this machine's hardware says nothing"
            self._told = Sizing(reasons={"num_ctx": f"not set: {why}"} if self.num_ctx is None else {})
            self.__dict__.update(devices=None, memory_bytes=None)
            return self
        asked = Asked(
            self.model,
            self.models_folder,
            self.engine_version,
            self.num_ctx,
            self.num_gpu,
            self.num_parallel,
        )
        told = size(asked, None if self.devices is None else as_devices(self.devices), self.memory_bytes)
        self._told = told
        self.__dict__.update(told.values)
        return self

    @model_validator(mode="before")
    @classmethod
    def _url_of_base_url(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "url" in data or not isinstance(data.get("base_url"), str):
            return data
        try:
            return {**data, "url": server_address(data["base_url"])}
        except ValueError:
            return data

    @property
    def address(self) -> str:
        """The server's address, without a trailing slash or `/v1`."""
        return server_address(self.url)

    @property
    def openai_url(self) -> str:
        """Where the same server speaks OpenAI's protocol."""
        return f"{self.address}/v1"

    @property
    def may_see_credentials(self) -> bool:
        """Whether the server is the one that the operator named in `base_url`.

        `url` is a user field: without this rule a user could send the operator's credential to a
        server of their own.
        """
        return self.base_url is not None and server_address(self.base_url).lower() == self.address.lower()

    @property
    def token(self) -> str | None:
        """The credential, for those that may send it."""
        return None if self.auth_credential is None else self.auth_credential.get_secret_value().strip()

    @property
    def has_credentials(self) -> bool:
        """Whether there is anything that only the operator's own server may see."""
        return self.auth_credential is not None or bool(self.network and self.network.headers)

    @property
    def options(self) -> dict[str, int]:
        """The options a load request carries: those that are set, in Ollama's own names."""
        named = {
            "num_ctx": self.num_ctx,
            "num_thread": self.num_thread,
            "num_batch": self.num_batch,
            "num_gpu": self.num_gpu,
        }
        return {name: value for name, value in named.items() if value is not None}
