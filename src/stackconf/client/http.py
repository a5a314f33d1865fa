"""How requests go out: address, token, actor, timeouts; and errors in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stackconf._version import __version__
from stackconf.actor import current_actor
from stackconf.errors import InvalidConfig, StackconfError, Unreachable

if TYPE_CHECKING:
    import httpx

    from stackconf.events import Event

URL_VARIABLE = "STACKCONF_URL"
TOKEN_VARIABLE = "STACKCONF_TOKEN"  # noqa: S105 (the name of a variable)
TOKEN_FILE_VARIABLE = "STACKCONF_TOKEN_FILE"  # noqa: S105
ACTOR_HEADER = b"Stackconf-Actor"
_CONNECT_SECONDS = 5.0
_SILENCE = 60.0


def address(url: str | None) -> str:
    """The server's address, without a slash at the end. Raises `InvalidConfig` where it is none."""
    given = url or os.environ.get(URL_VARIABLE)
    if not given:
        raise InvalidConfig(f"no server is named; give its URL, or set {URL_VARIABLE}")
    try:
        parts = urlsplit(given)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine:
        raise InvalidConfig(f"{given} is not the address of a server; write http://127.0.0.1:8420")
    if parts.username or parts.password:
        raise InvalidConfig(
            f"a token does not go into the address; set {TOKEN_VARIABLE} or {TOKEN_FILE_VARIABLE}"
        )
    return given.rstrip("/")


def token_of(given: str | None) -> str | None:
    """The token to send: the one given, that of the environment, or that of the file it names."""
    if given is not None:
        return given
    token = os.environ.get(TOKEN_VARIABLE)
    file = os.environ.get(TOKEN_FILE_VARIABLE)
    if token or not file:
        return token or None
    try:
        return Path(file).read_text().strip() or None
    except OSError as error:
        raise InvalidConfig(f"{TOKEN_FILE_VARIABLE}: {file}: {error.strerror or error}") from error


def query(given: Mapping[str, object]) -> dict[str, str]:
    """The query of a request."""
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value).encode("utf-8", "replace").decode()
        for key, value in given.items()
    }


def body(given: Mapping[str, object] | None) -> bytes | None:
    """The body of a request: plain JSON. Raises `InvalidConfig` for what that cannot say."""
    import json

    if given is None:
        return None
    try:
        return json.dumps(given, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"this cannot be sent as JSON: {error}") from error


def sent(actor: str | None, given: Mapping[str, object] | None) -> dict[bytes, bytes]:
    """What one request carries besides: who asks, in UTF-8."""
    said = "".join(each for each in actor or current_actor() if each.isprintable()).strip()
    made = {} if given is None else {b"Content-Type": b"application/json"}
    return {**made, ACTOR_HEADER: said.encode("utf-8", "replace")}


def headers(token: str | None) -> dict[str, str]:
    """What every request carries."""
    found = {
        "User-Agent": f"stackconf/{__version__}",
        "Accept": "application/json",
    }
    if token is not None:
        found["Authorization"] = f"Bearer {token}"
    return found


def timeouts(seconds: float | None) -> httpx.Timeout:
    """So long for an answer, and never long for a connection."""
    import httpx

    return httpx.Timeout(seconds, connect=_CONNECT_SECONDS)


def silence(asked: Mapping[str, Any]) -> float:
    """Seconds without a word after which an apply's server counts as gone. It says that it is alive four
    times as often, once it has waited for another apply to end.
    """
    wait = asked.get("wait", 0.0)
    return _SILENCE + (wait if isinstance(wait, (int, float)) else 0.0)


def unreachable(url: str, error: Exception) -> StackconfError:
    """What a failed request comes to."""
    import ssl

    import httpx

    if isinstance(error, httpx.ReadTimeout):
        return Unreachable(f"{url} did not answer in time")
    reason: BaseException = error
    while reason.__cause__ is not None or reason.__context__ is not None:
        reason = reason.__cause__ or reason.__context__  # type: ignore[assignment]
    if isinstance(reason, ssl.SSLCertVerificationError):
        how = "set SSL_CERT_FILE to the certificate of who signed it, if you know them"
        why = reason.verify_message.rstrip(".")
        return Unreachable(f"{url}: its certificate is not trusted: {why}; {how}")
    if isinstance(reason, ssl.SSLError):
        return Unreachable(f"{url} does not speak TLS; is it http:// and not https://?")
    said = getattr(reason, "strerror", None) or str(reason).rstrip(".") or type(error).__name__
    return Unreachable(f"cannot reach {url}: {said}; is `stackconf serve` running there?")


class Events:
    """An apply that runs elsewhere, out of the lines of its stream: server-sent events as the HTML
    standard describes them. A `problem` told there is kept, and raised when the stream has been read
    to its end.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = ""
        self._data: list[str] = []
        self._over = False
        self._problem: StackconfError | None = None

    def feed(self, line: str) -> Iterator[Event]:
        """The event that a line ends, if it ends one."""
        if line:
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "event":
                self._name = value
            elif key == "data":
                self._data.append(value)
            return
        name, lines = self._name, self._data
        self._name, self._data = "", []
        if lines:
            yield from self._told(name, "\n".join(lines))

    def _told(self, name: str, text: str) -> Iterator[Event]:
        import json

        from stackconf.shapes.errors import error_from
        from stackconf.shapes.reports import event_from

        data = json.loads(text)
        self._over = self._over or name != "progress"
        if name == "problem":
            self._problem = error_from(data)
        else:
            yield event_from(data)

    def finish(self) -> None:
        """Raise the problem that was told, and `Unreachable` where the stream ended before the apply."""
        if self._problem is not None:
            raise self._problem
        if not self._over:
            raise Unreachable(f"{self._url} went away during the apply; `status` says how it went")

    def broken(self, error: Exception) -> StackconfError:
        """What a stream that broke off comes to: the problem that was told, or that it did."""
        return self._problem or unreachable(self._url, error)
