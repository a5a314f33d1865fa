"""vLLM's HTTP API, as far as stackconf asks it: `GET /health` and `GET /v1/models`.

Follows https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html. Connects directly,
whatever the proxy variables say, and follows no redirect, so a credential goes nowhere else.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import (
    BadStatusLine,
    HTTPConnection,
    HTTPException,
    HTTPResponse,
    HTTPSConnection,
    IncompleteRead,
    RemoteDisconnected,
)
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from attrs import field, frozen

if TYPE_CHECKING:
    from stackconf_vllm.config import RemoteVllmConfig
    from stackconf_vllm.network import NetworkConfig, TlsConfig

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
MAX_ANSWER_BYTES = 4 * 1024**2
MAX_MESSAGE = 300

# A gateway's ways of saying that what is behind it cannot be reached; vLLM's /health answers 503
# when its engine is dead.
_UNREACHABLE_STATUS = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)


class Unreachable(Exception):
    """The server could not be asked. `str()` is one line; nothing was rejected."""


class Rejected(Exception):
    """The server answered, and not with what was asked for. `str()` is one line."""


@frozen
class Served:
    """One model, as `GET /v1/models` tells it."""

    name: str
    max_model_len: int | None = None
    """`None` for adapters, and for servers that do not say."""


@frozen
class Server:
    """One vLLM server. Every method raises `Unreachable` or `Rejected`, each one line."""

    address: str
    connect_seconds: float = CONNECT_SECONDS
    read_seconds: float = READ_SECONDS
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    tls: TlsConfig | None = field(default=None, repr=False)

    @classmethod
    def of(cls, config: RemoteVllmConfig, address: str) -> Server:
        """The server of a configuration."""
        return cls(address, *_timeouts(config.network), _headers(config), config.tls)

    def models(self) -> tuple[Served, ...]:
        """What it serves: its model under each of its names, and its adapters."""
        entries = self._ask("GET", "/v1/models").get("data")
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries
        ):
            raise Rejected(f"{self.address}/v1/models does not answer like a vLLM server; check url")
        return tuple(Served(_one_line(each["id"]), _whole(each.get("max_model_len"))) for each in entries)

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        try:
            status, content_type, text = self._exchange(method, path, self.read_seconds)
        except ssl.SSLError as error:
            problem = getattr(error, "verify_message", "") or error.reason or "TLS failed"
            raise Rejected(f"no trusted TLS connection to {self.address}: {_one_line(problem)}") from None
        except (RemoteDisconnected, ConnectionResetError, IncompleteRead):
            raise Unreachable(f"{self.address} closed the connection without a full answer") from None
        except UnicodeError:
            raise Rejected(f"{self.address} has no valid host name; check url") from None
        except TimeoutError as error:
            raise Unreachable(f"cannot reach {self.address}: {_one_line(error)}") from None
        except OSError as error:
            raise Unreachable(f"cannot reach {self.address}: {_reason(error)}") from None
        except (BadStatusLine, HTTPException):
            raise Rejected(f"{self.address} does not speak HTTP as vLLM does; check url") from None
        return self._read_answer(status, content_type, text)

    def _exchange(self, method: str, path: str, timeout: float) -> tuple[int, str, bytes]:
        connection, prefix = self._connection()
        headers = {"Accept": "application/json", "Connection": "close", **self.headers}
        try:
            try:
                connection.connect()
            except TimeoutError:
                raise TimeoutError(f"no connection within {self.connect_seconds:g} s") from None
            late = threading.Event()
            try:
                with _cut_off(connection.sock, timeout, late):
                    connection.request(method, prefix + path, headers=headers)
                    response = connection.getresponse()
                    answer = response.status, response.headers.get_content_type(), _whole_body(response)
            except (OSError, HTTPException):
                if not late.is_set():
                    raise
            if late.is_set():
                raise TimeoutError(f"no answer to {method} {path} within {timeout:g} s")
            return answer
        finally:
            connection.close()

    def _connection(self) -> tuple[HTTPConnection, str]:
        parts = urlsplit(self.address)
        host, prefix = parts.hostname or "", parts.path.rstrip("/")
        if parts.scheme.lower() == "https":
            context = _tls_context(self.tls)
            return HTTPSConnection(host, parts.port, timeout=self.connect_seconds, context=context), prefix
        return HTTPConnection(host, parts.port, timeout=self.connect_seconds), prefix

    def _read_answer(self, status: int, content_type: str, text: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if status != HTTPStatus.OK:
            message = self._error_message(answer) or _status_phrase(status)
            if status in _UNREACHABLE_STATUS:
                raise Unreachable(f"{self.address} is not ready ({status}): {message}")
            advice = "; check api_token" if status == HTTPStatus.UNAUTHORIZED else ""
            raise Rejected(f"vLLM at {self.address} answers {status}: {message}{advice}")
        if not isinstance(answer, dict):
            raise Rejected(f"{self.address} answers, but not like a vLLM server ({content_type}); check url")
        return answer

    def _error_message(self, answer: object) -> str:
        """The server's own words on one line, without any credential that it might repeat."""
        message = answer.get("error") if isinstance(answer, dict) else None
        message = message.get("message") if isinstance(message, dict) else message
        if not isinstance(message, str):
            return ""
        for value in self.headers.values():
            for secret in {value, value.removeprefix("Bearer ")} - {""}:
                message = message.replace(secret, "********")
        return _one_line(message)


@contextmanager
def _cut_off(sock: socket.socket, seconds: float, late: threading.Event) -> Iterator[None]:
    """End what waits on the socket after so many seconds in all; `late` says that this was why.

    A timeout of the socket's own begins anew with each byte that a slow server drips out. What is
    cut off may look whole: headers without an end are taken as they are.
    """

    def end() -> None:
        late.set()
        with suppress(OSError):
            # Not TLS's own goodbye, which would wait for the server.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    sock.settimeout(None)
    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _whole_body(response: HTTPResponse) -> bytes:
    text = response.read(MAX_ANSWER_BYTES + 1)
    if len(text) > MAX_ANSWER_BYTES:
        raise HTTPException("answer too large")
    if response.length:
        raise IncompleteRead(b"", response.length)
    return text


def _headers(config: RemoteVllmConfig) -> dict[str, str]:
    """The operator's credential and headers. Raises `Rejected`, without the value."""
    headers: dict[str, str] = {}
    if config.token is not None:
        headers["Authorization"] = f"Bearer {config.token}"
    for name, secret in ((config.network and config.network.headers) or {}).items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise Rejected(f"network.headers: {name!r} is no HTTP header name")
        headers[name] = secret.get_secret_value().strip()
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise Rejected(f"the value of the header {name} holds characters that no header may carry")
    return headers


def _timeouts(network: NetworkConfig | None) -> tuple[float, float]:
    timeout = network.timeout if network else None
    if timeout is None:
        return CONNECT_SECONDS, READ_SECONDS
    if isinstance(timeout, float):
        return timeout, timeout
    return timeout.connect or CONNECT_SECONDS, timeout.read or READ_SECONDS


def _tls_context(tls: TlsConfig | None) -> ssl.SSLContext:
    try:
        if tls is None:
            return ssl.create_default_context()
        context = ssl.create_default_context(cafile=tls.verify if isinstance(tls.verify, str) else None)
        if tls.verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.min_version is not None:
            context.minimum_version = getattr(ssl.TLSVersion, tls.min_version.replace(".", "_"))
        if tls.ciphers:
            context.set_ciphers(":".join(tls.ciphers))
        if tls.client_cert is not None:
            context.load_cert_chain(tls.client_cert, tls.client_key)
    except ssl.SSLError as error:
        raise Rejected(f"network.tls is not usable: {_one_line(error.reason or error)}") from None
    except OSError as error:
        raise Rejected(f"network.tls names a file that cannot be read: {_reason(error)}") from None
    return context


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _status_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no known status"


def _reason(error: OSError) -> str:
    return _one_line(error.strerror or error).lower()


def _one_line(text: object, most: int = MAX_MESSAGE) -> str:
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(text)).strip()
    return line if len(line) <= most else line[: most - 1] + "…"
