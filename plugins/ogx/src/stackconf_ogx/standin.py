"""What stands in the place of a provider whose routes are bound to it when the server starts.

Upstream looks a provider behind a router up for each request, so that it can be exchanged there. For
agents, responses or files it keeps the object itself, in its routes and in other providers. These get
a stand-in, which hands every call on to the provider of the moment.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_ABSENT = "the provider is not running: stackconf could not start it; `stackconf status` says why"


class StandIn:
    """Any provider, exchangeable. `protocol` is upstream's class of what its api can do, which says how
    its methods are called while no provider is there.
    """

    def __init__(self, protocol: type, impl: Any = None) -> None:
        self.__dict__["stands_for"] = impl
        self.__dict__["protocol"] = protocol

    def exchange(self, impl: Any) -> None:
        """Stand for another provider, or for none (`None`), from the next call on."""
        self.__dict__["stands_for"] = impl

    def __getattr__(self, name: str) -> Any:
        impl = self.__dict__["stands_for"]
        if impl is not None:
            found = getattr(impl, name)
            return self._method(name, found) if inspect.ismethod(found) else found
        declared = None if name.startswith("__") else getattr(self.__dict__["protocol"], name, None)
        if not inspect.isfunction(declared):
            raise AttributeError(f"{_ABSENT} (asked for `{name}`)")
        return self._method(name, declared.__get__(self))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.__dict__["stands_for"], name, value)

    def _method(self, name: str, found: Callable[..., Any]) -> Callable[..., Any]:
        """A function with the signature of a method, which asks whoever is there when it is called."""

        def ask(*arguments: Any, **options: Any) -> Any:
            impl = self.__dict__["stands_for"]
            if impl is None:
                raise NotImplementedError(_ABSENT)
            return getattr(impl, name)(*arguments, **options)

        ask.__name__ = ask.__qualname__ = name
        ask.__doc__ = found.__doc__
        ask.__signature__ = inspect.signature(found)  # type: ignore[attr-defined]
        return ask
