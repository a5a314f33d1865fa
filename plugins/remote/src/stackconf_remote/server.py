"""JSON over HTTP with a server that a configuration names, and one line for whatever goes wrong.

Connects directly, whatever the proxy variables say, and follows no redirect, so a credential goes
nowhere else.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
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
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

from attrs import field, frozen

if TYPE_CHECKING:
    from stackconf_remote.network import NetworkConfig, TlsConfig

Body: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""What is sent as JSON."""
CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
MAX_MESSAGE = 300

# A gateway's ways of saying that what is behind it cannot be reached. Servers answer 503 themselves
# while their queue is full, and where their engine is dead.
_UNREACHABLE_STATUS = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)


class Unreachable(Exception):
    """The server could not be asked. `str()` is one line; nothing was rejected."""


class Rejected(Exception):
    """The server answered, and not with what was asked for. `str()` is one line.

    `status` is that of the answer, or 0 where there was none that is HTTP's.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@frozen
class JsonServer:
    """One server; a subclass says which product it is. Every method raises `Unreachable` or `Rejected`.

    >>> class Ollama(JsonServer):
    ...     product = "Ollama"
    ...     kind = "an Ollama server"
    >>> Ollama("http://127.0.0.1:1").ask("GET", "/api/version")
    Traceback (most recent call last):
    ...
    stackconf_remote.server.Unreachable: cannot reach http://127.0.0.1:1: connection refused
    """

    product: ClassVar[str] = "the server"
    kind: ClassVar[str] = "a server"
    """The product's server with its article, as in "does not answer like ..."."""
    most_bytes: ClassVar[int] = 4 * 1024**2
    """The largest answer that is read."""
    unauthorised: ClassVar[str] = ""
    """What is to be checked after a 401, such as a field's name."""

    address: str
    connect_seconds: float = CONNECT_SECONDS
    read_seconds: float = READ_SECONDS
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    tls: TlsConfig | None = field(default=None, repr=False)

    def ask(
        self, method: str, path: str, body: Body | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """The answer, which must be a JSON object with status 200.

        `timeout` (seconds; `read_seconds` where not given) is for the whole answer, however slowly it
        drips. Raises `Unreachable` where the server cannot be asked or a gateway says so, and
        `Rejected` for every other answer.
        """
        answer: dict[str, Any] = self._asked(method, path, body, timeout, dict)
        return answer

    def ask_list(
        self, method: str, path: str, body: Body | None = None, timeout: float | None = None
    ) -> list[Any]:
        """As `ask`, where the answer must be a JSON list."""
        answer: list[Any] = self._asked(method, path, body, timeout, list)
        return answer

    def _asked(self, method: str, path: str, body: Body | None, timeout: float | None, kind: type) -> Any:
        try:
            status, content_type, text = self._exchange(method, path, body, timeout or self.read_seconds)
        except ssl.SSLError as error:
            raise Rejected(f"no trusted TLS connection to {self.address}: {_tls_problem(error)}") from None
        except (RemoteDisconnected, ConnectionResetError, IncompleteRead):
            raise Unreachable(f"{self.address} closed the connection without a full answer") from None
        except UnicodeError:
            raise Rejected(f"{self.address} has no valid host name; check url") from None
        except TimeoutError as error:
            raise Unreachable(f"cannot reach {self.address}: {one_line(error)}") from None
        except OSError as error:
            raise Unreachable(f"cannot reach {self.address}: {_reason(error)}") from None
        except (BadStatusLine, HTTPException):
            raise Rejected(f"{self.address} does not speak HTTP as {self.product} does; check url") from None
        return self._read_answer(status, content_type, text, kind)

    def error_in(self, answer: Mapping[str, Any]) -> object:
        """Where an error's answer has the message, for people; a subclass may know another place."""
        return answer.get("error")

    def _exchange(self, method: str, path: str, body: Body | None, timeout: float) -> tuple[int, str, bytes]:
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
                    with connection.getresponse() as response:
                        whole = _whole_body(response, self.most_bytes)
                        answer = response.status, response.headers.get_content_type(), whole
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
            context = tls_context(self.tls)
            return HTTPSConnection(host, parts.port, timeout=self.connect_seconds, context=context), prefix
        return HTTPConnection(host, parts.port, timeout=self.connect_seconds), prefix

    def _read_answer(self, status: int, content_type: str, text: bytes, kind: type) -> Any:
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if status != HTTPStatus.OK:
            message = self._error_message(answer) or _status_phrase(status)
            if status in _UNREACHABLE_STATUS:
                raise Unreachable(f"{self.address} is not ready ({status}): {message}")
            check = f"; check {self.unauthorised}" if self.unauthorised else ""
            advice = check if status == HTTPStatus.UNAUTHORIZED else ""
            raise Rejected(f"{self.product} at {self.address} answers {status}: {message}{advice}", status)
        if not isinstance(answer, kind):
            raise Rejected(f"{self.address} answers, but not like {self.kind} ({content_type}); check url")
        return answer

    def _error_message(self, answer: object) -> str:
        """The server's own words on one line, without any credential that it might repeat."""
        message = self.error_in(answer) if isinstance(answer, dict) else None
        if not isinstance(message, str):
            return ""
        for value in self.headers.values():
            for secret in {value, value.removeprefix("Bearer ")} - {""}:
                message = message.replace(secret, "********")
        return one_line(message)


def headers_of(token: str | None, network: NetworkConfig | None) -> dict[str, str]:
    """A bearer token and the headers of `network`. Raises `Rejected`, without the value.

    >>> headers_of("abc", None)
    {'Authorization': 'Bearer abc'}
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    for name, secret in ((network and network.headers) or {}).items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            raise Rejected(f"network.headers: {name!r} is no HTTP header name")
        headers[name] = secret.get_secret_value().strip()
    for name, value in headers.items():
        if not (value.isascii() and value.isprintable()):
            raise Rejected(f"the value of the header {name} holds characters that no header may carry")
    return headers


def timeouts_of(network: NetworkConfig | None) -> tuple[float, float]:
    """Seconds to wait for a connection, and for an answer.

    >>> timeouts_of(None)
    (2.0, 5.0)
    """
    timeout = network.timeout if network else None
    if timeout is None:
        return CONNECT_SECONDS, READ_SECONDS
    if isinstance(timeout, float):
        return timeout, timeout
    return timeout.connect or CONNECT_SECONDS, timeout.read or READ_SECONDS


def tls_context(tls: TlsConfig | None) -> ssl.SSLContext:
    """How a server is trusted: as the system does, unless `tls` says otherwise.

    Raises `Rejected` for a file that cannot be read and for ciphers that there are not.
    """
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
        raise Rejected(f"network.tls is not usable: {_tls_problem(error)}") from None
    except OSError as error:
        raise Rejected(f"network.tls names a file that cannot be read: {_reason(error)}") from None
    return context


def one_line(text: object, most: int = MAX_MESSAGE) -> str:
    r"""Foreign text on one line, without control characters, cut at `most` characters.

    >>> one_line("no such\n\x1b[31m model", 12)
    'no such [31…'
    """
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(text)).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


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


def _whole_body(response: HTTPResponse, most: int) -> bytes:
    text = response.read(most + 1)
    if len(text) > most:
        raise HTTPException("answer too large")
    if response.length:
        raise IncompleteRead(b"", response.length)
    return text


def _status_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no known status"


def _tls_problem(error: ssl.SSLError) -> str:
    # Those that OpenSSL did not raise itself have no reason.
    named = getattr(error, "verify_message", "") or getattr(error, "reason", "")
    return one_line(named or " ".join(map(str, error.args))) or "TLS failed"


def _reason(error: OSError) -> str:
    return one_line(error.strerror or error).lower()
