"""Which runtime hosts a stack, and the stack as that runtime reads it.

Without one (`local`) the installed plugins own the provider types and act on providers themselves. A
runtime is a server that has types of its own: it is found by its name among the entry points of the
group `stackconf.runtimes`, and says for each stack file which types there are (`Registry.hosted`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from stackconf.registry.registry import Registry
    from stackconf.stackfile.env import Grammar
    from stackconf.stackfile.model import StackFile

LOCAL = "local"
"""The name that stands for no runtime."""


class Runtime(Protocol):
    """What an entry point of the group `stackconf.runtimes` leads to."""

    grammar: Grammar | None
    """The form of references to the environment that the runtime reads; `None`: as the file has it."""

    def provider_types(self, stack: StackFile) -> object:
        """A provider plugin for one stack file: its `provides` are the types that the runtime has there,
        its hooks are called for their providers.

        It may have `label` (the name and version that people see), `apis`, `issues` and `absent`, see
        `Registry.hosted`. Raises a `StackconfError` when the runtime cannot serve at all.
        """
        raise NotImplementedError


def hosted(
    stack: StackFile,
    registry: Registry,
    runtime: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[StackFile, Registry]:
    """The stack as its runtime reads it, and the registry with the types of that runtime.

    `runtime` wins over `stackconf: runtime:` of the file. Raises `UnknownName` where it is not
    installed, `PluginLoadError` where it cannot serve.
    """
    name = runtime or stack.settings.get("runtime")
    if not name or name == LOCAL:
        return stack, registry
    from stackconf.stackfile.model import from_document

    found = registry.runtime(name)
    grammar = getattr(found.implementation, "grammar", None)
    if grammar is not None and grammar != stack.grammar:
        stack = from_document(stack.document, environ, grammar)
    return stack, registry.hosted(found, stack)
