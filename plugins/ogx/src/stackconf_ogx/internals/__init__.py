"""Everything that is taken from inside llama-stack and OGX.

Upstream promises none of it. So nothing outside this package imports upstream, each access says why
it is needed, and the tests run each of them against the real package. For each range of versions one
module knows what a version has, and one how it runs.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from attrs import frozen

from stackconf import PluginLoadError

if TYPE_CHECKING:
    from stackconf_ogx.internals.base import Internals


@frozen
class Supported:
    """A range of versions of one package, and the module that knows its inside."""

    package: str
    first: tuple[int, ...]
    below: tuple[int, ...]
    module: str
    requirement: str
    python: str = ""

    def has(self, found: str) -> bool:
        """Whether a version is in the range."""
        return self.first <= _numbers(found) < self.below


SUPPORTED = {
    "llama-stack": Supported(
        "llama-stack", (0, 2, 12), (0, 2, 13), "llama_stack_0_2", "llama-stack==0.2.12", "3.11 or newer"
    ),
    "ogx": Supported("ogx", (1, 5), (1, 6), "ogx_1_5", "ogx>=1.5,<1.6", "3.12 or newer"),
}
"""By the name of the runtime."""


def internals_of(runtime: str) -> Internals:
    """The inside of the installed version. Imports upstream, which takes seconds.

    Raises `PluginLoadError` when it is not installed, or in a version that nobody has looked into.
    """
    supported = SUPPORTED[runtime]
    install = f"run `pip install '{supported.requirement}'` (Python {supported.python})"
    try:
        found = version(supported.package)
    except PackageNotFoundError:
        raise PluginLoadError(runtime, f"`{supported.package}` is not installed here; {install}") from None
    if not supported.has(found):
        problem = f"{supported.package} {found} is installed, and {supported.requirement} is supported"
        raise PluginLoadError(runtime, f"{problem}; {install}")
    module = import_module(f"stackconf_ogx.internals.{supported.module}")
    opened: Internals = module.open_internals(found)
    return opened


def _numbers(text: str) -> tuple[int, ...]:
    """The release part of a version: `1.5.0rc1` -> `(1, 5, 0)`."""
    numbers: list[int] = []
    for part in text.split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    return tuple(numbers)
