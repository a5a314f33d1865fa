"""Applying a search configuration.

Nothing runs between two searches: the provider takes its settings from the configuration with
each search. What can be wrong is the key, so a new key is checked with the service.

An undo has nothing to take back and so nothing to verify: asking about the key that was there
before would cost quota, and tell nothing about the undo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import Applied
from stackconf_web_search.key_check import KeyRejected, Service, Unreachable, check_key

if TYPE_CHECKING:
    from stackconf_web_search.config import SearchConfig


def change(service: Service, config: SearchConfig, previous: SearchConfig | None) -> Applied:
    """Check a key that was not there before; a request costs quota, so a known key is not checked.

    Raises `KeyRejected` or `UnexpectedAnswer`, one line each, without the key.
    """
    settings = f"at most {config.max_results} results"
    if config.api_key is None:
        return Applied(f"no API key: searches fail until one is set; {settings}", undo=_nothing_to_undo)
    if previous is not None and previous.api_key == config.api_key:
        return Applied(
            f"the key is the one before, so it was not checked again; {settings}", undo=_nothing_to_undo
        )
    key = config.api_key.get_secret_value()
    if not sendable(key):
        raise KeyRejected(f"the API key holds characters that no {service.name} key has; check api_key")
    try:
        answer = check_key(service, key, config.timeout)
    except Unreachable as error:
        return Applied(pending=str(error))
    return Applied(f"{answer}; {settings}", undo=_nothing_to_undo)


def leave() -> Applied:
    """Nothing is taken down, and so nothing is asked when that is undone."""
    return Applied("nothing runs between two searches, so nothing was taken down", undo=_nothing_to_undo)


def sendable(key: str) -> bool:
    """Whether a key can stand in an HTTP header: visible ASCII without spaces."""
    return key.isascii() and key.isprintable() and " " not in key


def _nothing_to_undo() -> None:
    """Nothing was changed at the service."""
