"""stackconf's provider for agents: where their state and their responses are kept.

`current()` is the agents' state as this process has been configured to keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackconf_agents.state import AgentState

__all__ = ["current"]


def current(provider: str = "agents/meta-reference") -> AgentState | None:
    """The state that a provider of this process (`api/provider_id`) keeps in a sqlite file.

    `None` while the provider has not been applied, and where its state is kept by a server or by
    the stack's storage section.
    """
    from stackconf_agents import running

    return running.current(provider)
