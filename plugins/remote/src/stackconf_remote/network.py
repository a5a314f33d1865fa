"""How a server is reached: the parts of a config class that every version of upstream has had."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    SecretStr,
    model_validator,
)


def server_address(url: str, *, example: str, credential: str) -> str:
    """The address of the server behind `url`: without a trailing slash and without `/v1`, under which
    many servers speak OpenAI's protocol.

    Raises `ValueError` with what to write instead: like `example`, and a secret into the field that
    `credential` names.

    >>> server_address("http://gpu-box:8000/v1/", example="http://localhost:8000", credential="token")
    'http://gpu-box:8000'
    >>> server_address("gpu-box:8000", example="http://localhost:8000", credential="token")
    Traceback (most recent call last):
    ...
    ValueError: not an http:// or https:// address; write it like http://localhost:8000
    """
    text = url.strip()
    if not re.match(r"https?://[^/]", text, re.IGNORECASE) or re.search(r"[\s\x00-\x1f\x7f\\]", text):
        raise ValueError(f"not an http:// or https:// address; write it like {example}")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"the host or port is malformed; write it like {example}, port 1 to 65535") from None
    if not host or port == 0:
        raise ValueError(f"the host or port is missing; write it like {example}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"a user name or password does not belong into an address; use {credential}")
    if parts.query or parts.fragment:
        raise ValueError(f"an address has no `?` or `#` part; write it like {example}")
    return text.rstrip("/").removesuffix("/v1").rstrip("/")


def is_this_machine(address: str) -> bool:
    """Whether an address certainly means this machine.

    >>> is_this_machine("http://127.0.0.1:11434"), is_this_machine("http://gpu-box:11434")
    (True, False)
    """
    host = (urlsplit(address).hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    # Connecting to the unspecified address reaches this machine; OLLAMA_HOST is often 0.0.0.0.
    return ip.is_loopback or ip.is_unspecified


def text_as_bool(value: Any) -> Any:
    """`true` and `false` as text, as environment variables give them."""
    words = {"true": True, "false": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


def empty_as_none(value: Any) -> Any:
    """An empty text says nothing: it is what an unset environment variable becomes."""
    return None if isinstance(value, str) and not value.strip() else value


Credential = Annotated[SecretStr | None, BeforeValidator(empty_as_none)]


class Strict(BaseModel):
    """A part of a configuration that knows all of its keys and keeps values out of errors."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class TlsConfig(Strict):
    """How an https server is trusted. Paths are on the machine that applies the configuration."""

    verify: Annotated[bool | str, BeforeValidator(text_as_bool)] = Field(
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


class ProxyConfig(Strict):
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


class TimeoutConfig(Strict):
    """Timeouts in seconds."""

    connect: PositiveFloat | None = Field(None, description="Seconds to wait for a connection")
    read: PositiveFloat | None = Field(None, description="Seconds to wait for an answer")


class LimitsConfig(Strict):
    """The running provider's connection pool."""

    max_connections: int | None = Field(100, ge=1, description="Most connections at once")
    max_keepalive_connections: int | None = Field(20, ge=0, description="Most idle connections kept")
    keepalive_expiry: float | None = Field(5.0, ge=0, description="Seconds an idle connection is kept")


class NetworkConfig(Strict):
    """How the server is reached."""

    tls: TlsConfig | None = Field(None, description="How an https server is trusted")
    proxy: ProxyConfig | None = Field(None, description="A proxy for the running provider")
    timeout: PositiveFloat | TimeoutConfig | None = Field(
        None, description="Seconds to wait for a connection and for an answer, or each apart"
    )
    headers: dict[str, SecretStr] | None = Field(
        None,
        description="Further headers for every request",
        json_schema_extra={"secret": True},
    )
    limits: LimitsConfig | None = Field(None, description="The running provider's connection pool")
