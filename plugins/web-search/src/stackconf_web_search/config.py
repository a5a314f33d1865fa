"""What can be configured about a web search service.

Both classes accept what every upstream version accepted: `api_key` and `max_results` (all
versions), `timeout` and `connect_timeout` (1.5.0). There is no address to configure: a key is only
ever sent to its own service.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, SecretStr

from stackconf import user_field

MAX_RESULTS = 20
"""Brave: `count`, maximum 20. Tavily: `max_results`, maximum 20.
https://api-dashboard.search.brave.com/api-reference/web/search/get,
https://docs.tavily.com/documentation/api-reference/endpoint/search"""


def _clean_key(value: Any) -> Any:
    """Without the white space that copying leaves around a key; an empty key is none.

    A key is not refused here: pydantic keeps a refused value in its error.
    """
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    return (text.strip() or None) if isinstance(text, str) else value


class SearchConfig(BaseModel):
    """What the two services have in common.

    >>> config = SearchConfig(api_key=" tvly-abc ", max_results="5")
    >>> config.api_key, config.max_results, SearchConfig(api_key="").api_key
    (SecretStr('**********'), 5, None)
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    api_key: Annotated[SecretStr | None, BeforeValidator(_clean_key)] = user_field(
        None, update="in_place", secret=True, description="The service's API key; without one searches fail"
    )
    max_results: int = user_field(
        3, update="in_place", ge=1, le=MAX_RESULTS, description="Most results of one search, 1 to 20"
    )
    timeout: PositiveFloat = Field(
        30.0, allow_inf_nan=False, description="Seconds to wait for the answer to a search"
    )
    connect_timeout: PositiveFloat = Field(
        10.0, allow_inf_nan=False, description="Seconds to wait for a connection"
    )


class BraveSearchConfig(SearchConfig):
    """Brave Search."""


class TavilySearchConfig(SearchConfig):
    """Tavily."""
