"""The two runtimes. What is upstream's is imported when a stack has chosen one of them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackconf import StackFile
    from stackconf.stackfile.env import Grammar
    from stackconf_ogx.hosted import HostedTypes
    from stackconf_ogx.internals.base import Internals
    from stackconf_ogx.server import UpstreamServer

stackconf_api = 1


class UpstreamRuntime:
    """llama-stack or OGX, in the version that is installed."""

    def __init__(self, name: str, grammar: Grammar | None) -> None:
        self.name = name
        self.grammar: Grammar | None = grammar
        self.server: UpstreamServer | None = None
        """The server that runs in this process."""

    def provider_types(self, stack: StackFile) -> HostedTypes:
        """The types that the server has for one stack file, as a plugin. Raises `PluginLoadError` when
        the server is not installed, or in a version that is not supported.
        """
        from stackconf_ogx.hosted import HostedTypes
        from stackconf_ogx.internals import SUPPORTED
        from stackconf_ogx.policy import shipped

        return HostedTypes(opened(self.name), shipped(SUPPORTED[self.name].module), stack, self)


@cache
def opened(name: str) -> Internals:
    """The inside of the installed server, imported once for the process."""
    from stackconf_ogx.internals import internals_of

    return internals_of(name)


llama_stack = UpstreamRuntime("llama-stack", "old")
ogx = UpstreamRuntime("ogx", "new")
