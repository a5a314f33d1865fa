"""The agents' stores of this process: joining, changing, leaving, and taking each of them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from stackconf import Applied, Holder
from stackconf_agents.state import AgentState
from stackconf_storage import SqliteKVStoreConfig, expanded, open_checks

if TYPE_CHECKING:
    from stackconf_agents.config import AgentsConfig


@frozen(eq=False)
class _Stores:
    """What one configuration keeps open; `None` where its state is not in a sqlite file."""

    state: AgentState | None

    def check(self) -> str | None:
        return None if self.state is None else self.state.check()

    def close(self) -> None:
        if self.state is not None:
            self.state.close()


held: Holder[_Stores] = Holder(close=_Stores.close)


def current(provider: str) -> AgentState | None:
    """The state in use by a provider (`api/provider_id`), or `None`."""
    stores = held.current(provider)
    return None if stores is None else stores.state


def join(provider: str, config: AgentsConfig) -> Applied:
    """Keep state and responses where `config` says, from now on.

    Opens every store, all or none. Raises `StoreUnusable`; pending when a store's server cannot be
    reached, and nothing is changed then.
    """
    opened = open_checks(config.stores)
    if opened.pending is not None:
        return opened
    try:
        fresh = _Stores(_state(config))
    except BaseException:
        _call(opened.undo)
        raise

    def check() -> str | None:
        wrong = _call(opened.check)
        return wrong if isinstance(wrong, str) else fresh.check()

    detail = opened.detail
    if fresh.state is not None:
        detail += f"; up to {fresh.state.cache_bytes / 1024**2:.1f} MiB of state kept in memory"
    return held.swap(provider, fresh, check=check).applied(detail, undo=opened.undo)


def leave(provider: str) -> Applied:
    """Keep nothing open any more. Files and their content stay."""
    swap = held.swap(provider, None)
    if swap.before is None:
        return swap.applied("this process kept none of the agents' stores open")
    return swap.applied("the agents' stores are closed in this process; what they hold stays")


def _state(config: AgentsConfig) -> AgentState | None:
    store = next(iter(config.stores.values()))
    if not isinstance(store, SqliteKVStoreConfig):
        return None
    return AgentState(expanded(store.db_path), config.sqlite_cache_bytes)


def _call(function: object) -> object:
    return function() if callable(function) else None
