"""What `Stack` has and a client has not, and why."""

from __future__ import annotations

from collections.abc import Mapping

AT_HOME_ONLY: Mapping[str, str] = {
    "open": "a client is made with the server's URL",
    "file": "the stack file is the server's; `name` is its name, `export()` its text",
    "manager": "it resolves with plugins, which are the server's",
    "store": "it is the server's; `history()`, `show()`, `status()` and `applied()` tell what it holds",
    "secrets": "keys and secrets stay where the stack is",
    "resolution": "its configurations are objects with secrets in them; `effective()` has none",
    "bind": "the store is the server's, and so is what it keeps",
    "beside": "a client may be used by several threads as it is",
    "recover_store": "it is for a store that nobody has open; run it where the store is",
}
"""Each public name of `Stack` that no client has, with what to do instead."""


def missing(client: object, name: str) -> AttributeError:
    """What asking a client for such a name raises.

    >>> from stackconf import Client
    >>> missing(Client("http://127.0.0.1:8420"), "secrets").args[0]
    'Client has no `secrets`: keys and secrets stay where the stack is'
    """
    kind = type(client).__name__
    why = AT_HOME_ONLY.get(name)
    return AttributeError(f"{kind} has no `{name}`" + (f": {why}" if why else ""), name=name, obj=client)
