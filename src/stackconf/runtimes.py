"""Which runtime hosts a stack, and the stack as that runtime reads it.

Without one (`local`) the installed plugins own the provider types and act on providers themselves. A
runtime is a server that has types of its own: it is found by its name among the entry points of the
group `stackconf.runtimes`, and says for each stack file which types there are (`Registry.hosted`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve, frozen

from stackconf.types import Issue

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.registry.registry import Registry
    from stackconf.stackfile.env import Grammar
    from stackconf.stackfile.model import StackFile

LOCAL = "local"
"""The name that stands for no runtime."""

_SEVERAL = 2


@frozen
class Listens:
    """Where a runtime's server listens, as the stack file says: any address where `host` is `None`.
    `certificate` and `key` are files (PEM), and `authority` one of those whose clients are served, if
    only these; `ciphers` in OpenSSL's form. `clear` says that it may be asked without TLS.
    """

    host: str | None = None
    port: int | None = None
    certificate: str | None = None
    key: str | None = None
    clear: bool = True
    authority: str | None = None
    ciphers: str = ""


class RuntimeServer(Protocol):
    """A server that a runtime has in this process. It is an ASGI application for the routes of its own;
    stackconf's stand beside them at the same address.
    """

    listens: Listens
    logs_requests: bool
    """Whether it has a line in its log for each request; otherwise stackconf has one."""

    async def start(self, configs: Mapping[str, BaseModel]) -> None:
        """Start with these effective configurations, by `api/provider_id`: on the event loop that serves,
        before it takes connections. Raises a `StackconfError` when it cannot.
        """
        ...

    async def stop(self) -> None:
        """Shut down, on the same loop; also what did not start."""
        ...

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        ...


class Runtime(Protocol):
    """What an entry point of the group `stackconf.runtimes` leads to."""

    grammar: Grammar | None
    """The form of references to the environment that the runtime reads; `None`: as the file has it."""

    def provider_types(self, stack: StackFile) -> object:
        """A provider plugin for one stack file: its `provides` are the types that the runtime has there,
        its hooks are called for their providers.

        It may have `label` (the name and version that people see), `apis`, `issues` and `absent`, see
        `Registry.hosted`, and `server()`, which gives the `RuntimeServer` of that file. Raises a
        `StackconfError` when the runtime cannot serve at all.
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
    found = registry.runtime(name)
    grammar = getattr(found.implementation, "grammar", None)
    if grammar is not None and grammar != stack.grammar:
        stack = _read_by(name, grammar, stack, environ)
    return stack, registry.hosted(found, stack)


def _read_by(name: str, grammar: Grammar, stack: StackFile, environ: Mapping[str, str] | None) -> StackFile:
    """A file that is not in the runtime's grammar: each reference that is wrong is told, but where all
    are, it is said once, and the rest of the file judged as it is meant.
    """
    from stackconf.stackfile.env import FORMS, detect, reference
    from stackconf.stackfile.load import by_position
    from stackconf.stackfile.model import from_document, texts

    other = [(path, text) for path, text in texts(stack.document.data) if detect([text]) == stack.grammar]
    if len(other) < _SEVERAL or any(detect([text]) == grammar for text in stack.document.references):
        return from_document(stack.document, environ, grammar)
    right, wrong = (reference("X", "=", "default", each) for each in (grammar, stack.grammar))
    issue = Issue(
        f"{len(other)} references to the environment in the form of {FORMS[stack.grammar]};"
        f" `{name}` reads that of {FORMS[grammar]}",
        hint=f"write `{right}` for `{wrong}`",
        code="env-grammar",
        where=stack.document.nearest(other[0][0]),
    )
    return evolve(stack, issues=tuple(sorted([*stack.issues, issue], key=by_position)))
