"""Ollama's HTTP API, as far as loading a model needs it.

Follows https://github.com/ollama/ollama/blob/main/docs/api.md. Connects directly, whatever the
proxy variables say, and follows no redirect, so a credential goes nowhere else.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
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
    from stackconf_ollama.config import NetworkConfig, OllamaConfig, TlsConfig

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
POLL_SECONDS = 0.05
MAX_ANSWER_BYTES = 16 * 1024**2
MAX_MESSAGE = 300

# A gateway's ways of saying that what is behind it cannot be reached; Ollama itself answers 503
# while its queue is full.
_UNREACHABLE_STATUS = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)


class Unreachable(Exception):
    """The server could not be asked. `str()` is one line; nothing was rejected."""


class Rejected(Exception):
    """The server answered, and not with what was asked for. `str()` is one line."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@frozen
class Running:
    """A loaded model, as `GET /api/ps` tells it."""

    name: str
    context_length: int | None = None
    """`None` from servers that do not say (before https://github.com/ollama/ollama/pull/11331)."""
    expires_at: datetime | None = None


def full_name(model: str) -> str:
    """The model's name with its tag, which is `latest` where none is given.

    >>> full_name("llama3.2"), full_name("registry:5000/a/b"), full_name("llama3.2:3b")
    ('llama3.2:latest', 'registry:5000/a/b:latest', 'llama3.2:3b')
    """
    return model if ":" in model.rpartition("/")[2] else f"{model}:latest"


@frozen
class Server:
    """One Ollama server. Every method raises `Unreachable` or `Rejected`, each one line."""

    address: str
    connect_seconds: float = CONNECT_SECONDS
    read_seconds: float = READ_SECONDS
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    tls: TlsConfig | None = field(default=None, repr=False)

    @classmethod
    def of(cls, config: OllamaConfig) -> Server:
        """The server of a configuration; credentials go along only where they may."""
        network = config.network
        connect, read = _timeouts(network)
        headers = _headers(config) if config.may_see_credentials else {}
        return cls(config.address, connect, read, headers, network.tls if network else None)

    def version(self) -> str:
        """The server's version, such as `0.12.3`."""
        version = self._ask("GET", "/api/version").get("version")
        if not isinstance(version, str) or not version:
            raise Rejected(f"{self.address} answers, but not like an Ollama server (no version); check url")
        return _one_line(version, 40)

    def models(self) -> dict[str, str]:
        """The models on the server by full name, with the host that runs them: `""` is this server.

        A cloud model is listed by the server, and runs elsewhere.
        """
        return {
            full_name(entry["name"]): _one_line(entry.get("remote_host") or "")
            for entry in self._list("/api/tags")
        }

    def running(self) -> dict[str, Running]:
        """The models in memory, by full name."""
        entries = [
            Running(full_name(entry["name"]), _whole(entry.get("context_length")), _moment(entry))
            for entry in self._list("/api/ps")
        ]
        return {entry.name: entry for entry in entries}

    def load(
        self, model: str, options: Mapping[str, int], keep_alive: int | str | None, timeout: float
    ) -> datetime | None:
        """Load a model with `options`; returns the server's clock at that moment, where it says.

        An empty prompt loads. Models that only embed refuse that, and are loaded by an embed
        request without input.
        """
        body: dict[str, Any] = {"model": model, "stream": False, "options": dict(options)}
        if keep_alive is not None:
            body["keep_alive"] = keep_alive
        try:
            answer = self._ask("POST", "/api/generate", body, timeout)
        except Rejected as error:
            if error.status != HTTPStatus.BAD_REQUEST or "does not support generate" not in str(error):
                raise
            del body["stream"]
            answer = self._ask("POST", "/api/embed", body, timeout)
        return _moment({"expires_at": answer.get("created_at")})

    def unload(self, model: str) -> bool:
        """Take a model out of memory; `False` where it stays for now, because a request uses it.

        An empty prompt with `keep_alive` 0 unloads, shortly after the answer: a load that comes
        before that would be undone by it, so this waits, at most as long as for an answer.
        """
        self._ask("POST", "/api/generate", {"model": model, "stream": False, "keep_alive": 0})
        deadline = time.monotonic() + self.read_seconds
        while full_name(model) in self.running():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _list(self, path: str) -> list[dict[str, Any]]:
        entries = self._ask("GET", path).get("models")
        # A server without models answers null in some versions.
        entries = [] if entries is None else entries
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
        ):
            raise Rejected(f"{self.address}{path} does not answer like an Ollama server; check url")
        return entries

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        try:
            status, content_type, text = self._exchange(method, path, body, timeout or self.read_seconds)
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
            raise Rejected(f"{self.address} does not speak HTTP as Ollama does; check url") from None
        return self._read_answer(status, content_type, text)

    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float
    ) -> tuple[int, str, bytes]:
        connection, prefix = self._connection()
        data = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json", "Connection": "close", **self.headers}
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            try:
                connection.connect()
            except TimeoutError:
                raise TimeoutError(f"no connection within {self.connect_seconds:g} s") from None
            late = threading.Event()
            try:
                with _cut_off(connection.sock, timeout, late):
                    connection.request(method, prefix + path, data, headers)
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
            raise Rejected(f"Ollama at {self.address} answers {status}: {message}", status)
        if not isinstance(answer, dict):
            raise Rejected(
                f"{self.address} answers, but not like an Ollama server ({content_type}); check url"
            )
        return answer

    def _error_message(self, answer: object) -> str:
        """The server's own words on one line, without any credential that it might repeat."""
        message = answer.get("error") if isinstance(answer, dict) else None
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


def _headers(config: OllamaConfig) -> dict[str, str]:
    """The operator's credential and headers. Raises `Rejected`, without the value."""
    headers: dict[str, str] = {}
    if config.auth_credential is not None:
        headers["Authorization"] = f"Bearer {config.auth_credential.get_secret_value().strip()}"
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


def _moment(entry: Mapping[str, Any]) -> datetime | None:
    text = entry.get("expires_at")
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else None


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
