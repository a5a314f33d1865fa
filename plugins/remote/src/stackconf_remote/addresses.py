"""What a person should know about the addresses of a server that has a credential."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from stackconf import Issue

if TYPE_CHECKING:
    from stackconf_remote.network import NetworkConfig


class Addressed(Protocol):
    """A configuration whose `url` decides where the server is, and whose `base_url` is the operator's."""

    @property
    def url(self) -> str | None:
        """Where the server is, with its path."""
        ...

    @property
    def base_url(self) -> str | None:
        """The operator's own word for it."""
        ...

    @property
    def address(self) -> str | None:
        """`url` without a path."""
        ...

    @property
    def token(self) -> str | None:
        """The credential, where there is one."""
        ...

    @property
    def network(self) -> NetworkConfig | None:
        """The settings that may hold headers."""
        ...


def address_issues(
    user_config: Mapping[str, object], config: Addressed, operators: str | None
) -> Iterator[Issue]:
    """A credential for a server that a user names is an error; two servers are a warning.

    `operators` is the address that the operator's own settings give, if they give one.
    """
    secret = config.token is not None or bool(config.network and config.network.headers)
    if secret and user_config.get("url") is not None and config.address != operators:
        # An error and not a warning: the running provider would send it as well.
        yield Issue(
            "the operator's credential is not for a server that a user names",
            path="url",
            hint=f"leave url out, or let the operator set base_url to {config.url}",
        )
    if config.base_url is not None and config.address != operators and "url" not in user_config:
        yield Issue(
            f"url ({config.address}) and base_url name two servers; url decides",
            level="warning",
            path="base_url",
            hint="remove one of the two",
        )
