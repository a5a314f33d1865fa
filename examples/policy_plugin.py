"""A site's rules for every provider, whoever wrote it: a cross-cutting plugin in one file.

    stackconf --plugin examples/policy_plugin.py explain inference/ollama num_thread

* Providers may only talk to this machine and to hosts below `SITE`.
* Every thread count that a plugin derives leaves one core to the rest of the machine.

It has no `provides`, so its hooks are called for all providers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stackconf import Issue, because, hookimpl
from stackconf.types import Because

if TYPE_CHECKING:
    from pydantic import BaseModel

stackconf_api = 1

SITE = ".example.org"
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
THREADS = frozenset({"threads", "num_thread", "num_threads"})


@hookimpl
def validate_user_config(config: BaseModel) -> Iterator[Issue]:
    """Refuse a `url` outside the site."""
    host = urlsplit(str(getattr(config, "url", ""))).hostname
    if host is not None and host not in LOCAL and not host.endswith(SITE):
        yield Issue(
            f"`{host}` is outside the site", path="url", hint=f"use this machine or a host below `{SITE}`"
        )


@hookimpl(wrapper=True)
def default_config() -> Generator[None, Mapping[str, object] | None, Mapping[str, object] | None]:
    """Take the answer of the type's own plugin and lower its thread counts."""
    derived = yield
    if derived is None:
        return None
    return {name: _lowered(value) if name in THREADS else value for name, value in derived.items()}


def _lowered(value: object) -> object:
    given, reason = (value.value, value.reason) if isinstance(value, Because) else (value, "")
    if not isinstance(given, int) or given <= 1:
        return value
    return because(given - 1, f"{reason}; site policy: one core is left to others".lstrip("; "))
