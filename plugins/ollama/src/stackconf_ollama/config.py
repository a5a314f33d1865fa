"""What can be configured about an Ollama server.

The class accepts what every upstream version accepted for `remote::ollama`: `url` (0.0.53 to
0.3), `raise_on_connect_error` (0.2.14), `refresh_models` and `allowed_models` (from 0.2.23),
`auth_credential` (from 0.3), `base_url` (from 0.4) and `network` (from 0.6). The settings of how a
model is loaded are stackconf's own.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    SecretStr,
    model_validator,
)

from stackconf import user_field

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
    text = url.strip()
    if not re.match(r"https?://[^/]", text, re.IGNORECASE) or re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise ValueError(f"not an http:// or https:// address; write it like {DEFAULT_URL}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(
            f"the host or port is malformed; write it like {DEFAULT_URL}, port 1 to 65535"
        ) from None
    if not host or port == 0:
        raise ValueError(f"the host or port is missing; write it like {DEFAULT_URL}")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a user name or password does not belong into an address; use auth_credential")
    if parts.query or parts.fragment:
        raise ValueError(f"an address has no `?` or `#` part; write it like {DEFAULT_URL}")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


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


def _text_as_bool(value: Any) -> Any:
    words = {"true": True, "false": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


def _empty_as_none(value: Any) -> Any:
    return None if isinstance(value, str) and not value.strip() else value


Address = Annotated[str, AfterValidator(_checked_address)]
KeepAlive = Annotated[int | str, AfterValidator(_checked_keep_alive)]
Credential = Annotated[SecretStr | None, BeforeValidator(_empty_as_none)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class TlsConfig(_Strict):
    """How an https server is trusted. Paths are on the machine that applies the configuration."""

    verify: Annotated[bool | str, BeforeValidator(_text_as_bool)] = Field(
        True, description="Check the server's certificate: true, false, or the path of a CA file"
    )
    min_version: Literal["TLSv1.2", "TLSv1.3"] | None = Field(
        None, description="The oldest TLS version accepted; the system's default where unset"
    )
    ciphers: list[str] | None = Field(None, description="Allowed cipher suites, in OpenSSL's names")
    client_cert: str | None = Field(None, description="Path of a client certificate for mutual TLS")
    client_key: str | None = Field(None, description="Path of the client certificate's key")

    @model_validator(mode="after")
    def _pair(self) -> TlsConfig:
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("client_cert and client_key belong together; give both or neither")
        return self


class ProxyConfig(_Strict):
    """A proxy for the running provider. stackconf itself always connects directly."""

    url: str | None = Field(None, description="One proxy for every connection")
    http: str | None = Field(None, description="The proxy for http connections")
    https: str | None = Field(None, description="The proxy for https connections")
    cacert: str | None = Field(None, description="CA file for a proxy that intercepts TLS")
    no_proxy: list[str] | None = Field(None, description="Hosts that bypass the proxy")

    @model_validator(mode="after")
    def _one_form(self) -> ProxyConfig:
        if self.url and (self.http or self.https):
            raise ValueError("give either url, or http and https")
        return self


class TimeoutConfig(_Strict):
    """Timeouts in seconds."""

    connect: PositiveFloat | None = Field(None, description="Seconds to wait for a connection")
    read: PositiveFloat | None = Field(None, description="Seconds to wait for an answer")


class LimitsConfig(_Strict):
    """The running provider's connection pool."""

    max_connections: int | None = Field(100, ge=1, description="Most connections at once")
    max_keepalive_connections: int | None = Field(20, ge=0, description="Most idle connections kept")
    keepalive_expiry: float | None = Field(5.0, ge=0, description="Seconds an idle connection is kept")


class NetworkConfig(_Strict):
    """How the server is reached."""

    tls: TlsConfig | None = Field(None, description="How an https server is trusted")
    proxy: ProxyConfig | None = Field(None, description="A proxy for the running provider")
    timeout: PositiveFloat | TimeoutConfig | None = Field(
        None, description="Seconds to wait for a connection and for an answer, or each apart"
    )
    headers: dict[str, SecretStr] | None = Field(
        None,
        description="Further headers for every request; sent only to the server of base_url",
        json_schema_extra={"secret": True},
    )
    limits: LimitsConfig | None = Field(None, description="The running provider's connection pool")


class OllamaConfig(_Strict):
    """An Ollama server and, where `model` is set, how that model is loaded.

    `url` decides where the server is. Where only `base_url` is given, `url` becomes its server:

    >>> OllamaConfig(base_url="http://gpu-box:11434/v1").url
    'http://gpu-box:11434'
    >>> OllamaConfig(url="http://localhost:12345").openai_url
    'http://localhost:12345/v1'
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    url: Address = user_field(
        DEFAULT_URL, update="reload", description="Where the Ollama server listens, http(s)://host:port"
    )
    base_url: Address | None = Field(
        None,
        description="The same server's OpenAI path, ending in /v1; decides where the server is only if "
        "url is not given, and names the one server that may see credentials",
    )

    model: Annotated[str | None, BeforeValidator(_empty_as_none)] = user_field(
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
