"""The agents' stores of this process: joining, changing, leaving, and taking each of them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import Applied
from stackconf_agents.state import AgentState
from stackconf_storage import SqliteKVStoreConfig, expanded, open_checks

if TYPE_CHECKING:
    from stackconf_agents.config import AgentsConfig

_in_use: dict[str, AgentState] = {}
_retired: dict[str, AgentState] = {}
"""What the last change of each provider replaced, open until the next one for an undo."""


def current(provider: str) -> AgentState | None:
    """The state in use by a provider (`api/provider_id`), or `None`."""
    return _in_use.get(provider)


def join(provider: str, config: AgentsConfig) -> Applied:
    """Keep state and responses where `config` says, from now on.

    Opens every store, all or none. Raises `StoreUnusable`; pending when a store's server cannot be
    reached, and nothing is changed then.
    """
    opened = open_checks(config.stores)
    if opened.pending is not None:
        return opened
    try:
        fresh = _state(config)
    except BaseException:
        _call(opened.undo)
        raise
    before = _exchange(provider, fresh)

    def undo() -> None:
        _restore(provider, before)
        if fresh is not None:
            fresh.close()
        _call(opened.undo)

    def check() -> str | None:
        if current(provider) is not fresh:
            return f"{provider} of this process has been configured anew since"
        wrong = _call(opened.check)
        if isinstance(wrong, str):
            return wrong
        return None if fresh is None else fresh.check()

    kept = "" if fresh is None else f"; up to {fresh.cache_bytes / 1024**2:.1f} MiB of state kept in memory"
    return Applied(f"{opened.detail}{kept}", undo=undo, check=check)


def leave(provider: str) -> Applied:
    """Keep nothing open any more. Files and their content stay."""
    before = _exchange(provider, None)
    return Applied(
        "the agents' stores are closed in this process; what they hold stays",
        undo=lambda: _restore(provider, before),
    )


def _state(config: AgentsConfig) -> AgentState | None:
    store = next(iter(config.stores.values()))
    if not isinstance(store, SqliteKVStoreConfig):
        return None
    return AgentState(expanded(store.db_path), config.sqlite_cache_bytes)


def _exchange(provider: str, fresh: AgentState | None) -> AgentState | None:
    before = _in_use.pop(provider, None)
    if fresh is not None:
        _in_use[provider] = fresh
    expired = _retired.pop(provider, None)
    if before is not None:
        _retired[provider] = before
    if expired is not None:
        expired.close()
    return before


def _restore(provider: str, before: AgentState | None) -> None:
    _retired.pop(provider, None)
    if before is None:
        _in_use.pop(provider, None)
    else:
        _in_use[provider] = before


def _call(function: object) -> object:
    return function() if callable(function) else None
