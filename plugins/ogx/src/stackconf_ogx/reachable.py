"""Whether a provider refused something, or only could not be reached, or is not well."""

from __future__ import annotations

from collections.abc import Mapping
from socket import gaierror
from typing import Any

from stackconf.redact import described

ERROR = "Error"
"""Upstream's word for a provider that is not well."""
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
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return None


def unhealthy(told: Mapping[str, Any] | None) -> str | None:
    """What is wrong with a provider as its own health check says; `None` where it says nothing of the kind.

    >>> unhealthy({"status": "Error", "message": "no answer"})
    'its health check says: no answer'
    >>> unhealthy({"status": "Not Implemented"}) is unhealthy(None) is None
    True
    """
    if told is None or told["status"] != ERROR:
        return None
    return f"its health check says: {told.get('message') or ERROR}"
