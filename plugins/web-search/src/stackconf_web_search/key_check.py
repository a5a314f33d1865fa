"""Asking a search service whether it takes a key.

The answer is told in stackconf's own words, never in the service's, for a service may repeat the
key. Proxy variables are honoured, as an internet service needs; a key travels inside TLS either
way. Redirects are not followed: they would carry the key elsewhere.
"""

from __future__ import annotations

import json
import ssl
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage, HTTPSConnection
from typing import IO, TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, Request, build_opener

from attrs import frozen

if TYPE_CHECKING:
    from http.client import HTTPResponse

CONNECT_SECONDS = 2.0
READ_SECONDS = 8.0
MAX_ERROR_BYTES = 64 * 1024


class KeyRejected(Exception):
    """The service does not take the key. `str()` is one line and never holds the key."""


class UnexpectedAnswer(Exception):
    """The service answers in a way that its documentation does not know."""


class Unreachable(Exception):
    """The service could not be asked."""


@frozen
class Service:
    """How one service is asked. `key_prefix` stands before the key in `header`."""

    name: str
    url: str
    header: str
    key_prefix: str = ""
    reject_codes: frozenset[str] = frozenset()
    """Error codes in a 422 answer that mean: the key is wrong."""
    used_up: frozenset[int] = frozenset()
    """Statuses that mean: the key is right, its plan is used up."""

    @property
    def host(self) -> str:
        """Where it is, for messages."""
        return self.url.split("/")[2]


# One result of one cheap query. Only successful requests are counted and billed, so a wrong key
# costs nothing: https://api.search.brave.com/app/documentation/web-search/response-headers
BRAVE = Service(
    name="Brave Search",
    url="https://api.search.brave.com/res/v1/web/search?q=brave&count=1",
    header="X-Subscription-Token",
    # Brave answers a wrong key with 422 and this code, where 401 would be expected.
    reject_codes=frozenset({"SUBSCRIPTION_TOKEN_INVALID"}),
)

# The key's own usage: costs no credits.
# https://docs.tavily.com/documentation/api-reference/endpoint/usage
TAVILY = Service(
    name="Tavily",
    url="https://api.tavily.com/usage",
    header="Authorization",
    key_prefix="Bearer ",
    # 432: the plan's limit is reached, 433: the pay-as-you-go limit is.
    used_up=frozenset({432, 433}),
)


def check_key(service: Service, key: str, timeout: float = READ_SECONDS) -> str:
    """Ask `service` whether it takes `key`, waiting at most `timeout` seconds; one line that says so.

    Raises `KeyRejected`, `Unreachable` or `UnexpectedAnswer`.
    """
    request = Request(service.url, headers={"Accept": "application/json"})  # noqa: S310 - a fixed address
    # An unredirected header stays out of a proxy's CONNECT request too.
    request.add_unredirected_header(service.header, service.key_prefix + key)
    try:
        with _opener().open(request, timeout=min(timeout, READ_SECONDS)) as response:
            content_type = response.headers.get_content_type()
    except HTTPError as error:
        with error:
            return _judge(service, error)
    except URLError as error:
        raise _unreachable(service, error.reason) from None
    except (OSError, HTTPException) as error:
        raise _unreachable(service, error) from None
    if content_type != "application/json":
        raise UnexpectedAnswer(f"{service.host} does not answer like {service.name}; is a proxy in between?")
    return f"{service.name} takes the key"


def _judge(service: Service, error: HTTPError) -> str:
    """What an answer other than 200 means."""
    if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise KeyRejected(f"{service.name} rejects the API key ({error.code}); check api_key") from None
    if error.code == HTTPStatus.UNPROCESSABLE_ENTITY and _error_code(error) in service.reject_codes:
        raise KeyRejected(f"{service.name} rejects the API key ({error.code}); check api_key") from None
    if error.code == HTTPStatus.TOO_MANY_REQUESTS:
        return f"{service.name} knows the key, but answers 429: its rate limit or quota is used up for now"
    if error.code in service.used_up:
        return f"{service.name} knows the key, but answers {error.code}: its plan is used up"
    if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.REQUEST_TIMEOUT:
        raise Unreachable(f"{service.name} is not ready: {service.host} answers {error.code}") from None
    raise UnexpectedAnswer(
        f"{service.name} could not check the key: {service.host} answers {error.code}; try again later"
    ) from None


def _error_code(error: HTTPError) -> str:
    try:
        answer = json.loads(error.read(MAX_ERROR_BYTES))
        return str(answer["error"]["code"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError, RecursionError):
        return ""


def _unreachable(service: Service, reason: object) -> Unreachable | UnexpectedAnswer:
    if isinstance(reason, ssl.SSLCertVerificationError):
        problem = reason.verify_message
        return UnexpectedAnswer(
            f"the certificate of {service.host} is not trusted ({problem}); the key was not sent"
        )
    return Unreachable(f"cannot reach {service.host}: {_words(reason)}")


def _words(reason: object) -> str:
    """Why, in words that cannot hold a key: never the text of the error itself."""
    if isinstance(reason, TimeoutError):
        return "no answer in time"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    if isinstance(reason, ConnectionError):
        return "the connection was closed"
    if isinstance(reason, OSError) and str(reason).startswith("Tunnel connection failed"):
        return "the proxy refused"
    return "no usable answer"


class _Connection(HTTPSConnection):
    """Gives up on connecting sooner than on an answer."""

    def connect(self) -> None:
        wait, self.timeout = self.timeout, CONNECT_SECONDS
        super().connect()
        self.sock.settimeout(wait)


class _Https(HTTPSHandler):
    def https_open(self, request: Request) -> HTTPResponse:
        return self.do_open(_Connection, request, context=ssl.create_default_context())


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """A redirect is an answer like any other."""


def _opener() -> OpenerDirector:
    return build_opener(_Https, _NoRedirects)
