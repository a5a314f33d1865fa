"""Whether a provider refused something, or only could not be reached."""

from __future__ import annotations

from socket import gaierror

from stackconf.redact import described

_NAMES = frozenset(
    {
        "TransportError",  # httpx, httpx2, requests' urllib3
        "APIConnectionError",  # openai, and the clients generated like it
        "ClientConnectionError",  # aiohttp
        "ServiceUnavailableError",
    }
)


def unreachable(error: BaseException) -> str | None:
    """Why a provider could not be reached, where that is what an exception comes from; `None` otherwise.

    >>> unreachable(ValueError("no such model")) is None
    True
    >>> unreachable(ConnectionRefusedError(111, "Connection refused"))
    'ConnectionRefusedError: [Errno 111] Connection refused'
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        names = {base.__name__ for base in type(each).__mro__}
        if isinstance(each, (ConnectionError, TimeoutError, gaierror)) or names & _NAMES:
            return described(error).removeprefix("raised ")
        each = each.__cause__ or each.__context__
    return None
