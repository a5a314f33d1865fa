"""The plugin: Brave Search and Tavily as `tool_runtime` providers.

There is no `default_config`: a client of a web service does not depend on the machine it runs on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stackconf import Issue, ProviderType, hookimpl

if TYPE_CHECKING:
    from stackconf import Applied, Provider
    from stackconf_web_search.config import SearchConfig

stackconf_api = 1

provides = (
    ProviderType(
        "tool_runtime",
        "remote::brave-search",
        "stackconf_web_search.config:BraveSearchConfig",
        description="Web search by Brave Search",
    ),
    ProviderType(
        "tool_runtime",
        "remote::tavily-search",
        "stackconf_web_search.config:TavilySearchConfig",
        description="Web search by Tavily",
    ),
)

TAVILY_PREFIX = "tvly-"


@hookimpl
def validate_user_config(provider: Provider, config: SearchConfig) -> Iterator[Issue]:
    """A key that cannot be one, or that is the other service's. Never says the key."""
    from stackconf_web_search.applying import sendable

    if config.api_key is None:
        return
    key = config.api_key.get_secret_value()
    if not sendable(key):
        yield Issue(
            "the key holds white space or characters outside ASCII",
            path="api_key",
            hint="copy it again, without quotes around it",
        )
    elif (provider.provider_type == "remote::tavily-search") != key.startswith(TAVILY_PREFIX):
        yield Issue(
            f"only keys of Tavily start with {TAVILY_PREFIX}, and they all do",
            level="warning",
            path="api_key",
            hint="is it the key of the other service?",
        )
    if config.connect_timeout > config.timeout:
        yield Issue(
            f"more than the {config.timeout:g} s for a whole search",
            level="warning",
            path="connect_timeout",
            hint="make it smaller than timeout",
        )


@hookimpl
def apply_config(provider: Provider, config: SearchConfig | None, previous: SearchConfig | None) -> Applied:
    """Check a new key with its service; see `stackconf_web_search.applying`."""
    from stackconf_web_search.applying import change, leave

    if config is None:
        return leave()
    from stackconf_web_search.key_check import BRAVE, TAVILY

    service = TAVILY if provider.provider_type == "remote::tavily-search" else BRAVE
    return change(service, config, previous)
