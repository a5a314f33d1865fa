"""Which packages a provider cannot do without, read from its source: nothing is imported.

Upstream lists the packages of a type (`pip_packages`), far more than one configuration of it needs,
and finds out what is missing when the server starts. What making the provider imports is known
without running it: what its module imports, what its `get_..._impl` imports, and what those modules
import in turn. Imports that may fail (`except ImportError`) and those for type checkers do not count.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from stackconf_ogx.internals.base import Spec

_FACTORIES = ("get_adapter_impl", "get_provider_impl")
_TOLERANT = ("ImportError", "ModuleNotFoundError", "Exception")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_WITH_VALUE = ("--index-url", "--extra-index-url", "-i", "--find-links", "-f")
_MOST_MODULES = 2000
_PACKAGES = {"PIL": "pillow", "psycopg2": "psycopg2-binary", "sklearn": "scikit-learn", "zmq": "pyzmq"}
"""Packages whose name does not have that of their module in it."""


@frozen
class Missing:
    """What is not installed: names that Python imports, and what pip would install."""

    at_start: tuple[str, ...] = ()
    """Without these the provider cannot be made."""
    when_used: tuple[str, ...] = ()
    """These are imported by some of its own functions."""
    requirements: tuple[str, ...] = ()
    """What to install: of the packages that upstream lists for the type those that are not here, and what
    it forgot to list.
    """


def missing_packages(spec: Spec, package: str) -> Missing:
    """What the provider of a type needs that is not installed here."""
    if not spec.module:
        return Missing()
    walk = _Walk(spec.module, {package, spec.module.split(".", 1)[0]})
    at_start = tuple(sorted(name for name in walk.at_start if not _installed(name)))
    when_used = tuple(sorted(name for name in walk.when_used - walk.at_start if not _installed(name)))
    requirements = list(missing_requirements(spec.packages)) if at_start or when_used else []
    requirements += [
        _PACKAGES.get(name, name) for name in at_start or when_used if not _in(name, requirements)
    ]
    return Missing(at_start, when_used, tuple(requirements))


def _in(name: str, requirements: Iterable[str]) -> bool:
    """Whether the package of an import name is surely one of these: `faiss` is in `faiss-cpu`."""
    plain = _plain(_PACKAGES.get(name, name))
    return any(plain in _plain(each) for each in requirements)


def _plain(name: str) -> str:
    return re.sub("[-_.]", "", name).lower()


def missing_requirements(listed: Iterable[str]) -> Iterator[str]:
    """Of pip's arguments, the requirements whose packages are not installed.

    >>> listed = ["attrs", "no-such-a>=1 no-such-b --index-url https://x", "no-such-c --no-deps"]
    >>> list(missing_requirements(listed))
    ['no-such-a>=1', 'no-such-b', 'no-such-c']
    """
    for arguments in listed:
        words = iter(arguments.split())
        for word in words:
            if word in _WITH_VALUE:
                next(words, None)
            elif not word.startswith("-") and (name := _NAME.match(word)) and not _has(name.group()):
                yield word


def _has(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


@cache
def _installed(name: str) -> bool:
    """Whether a package can be imported; a part of a namespace package is asked for by both names."""
    if name in sys.modules or name in sys.stdlib_module_names:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@cache
def _is_namespace(name: str) -> bool:
    """Whether several distributions share a package, such as `google` or `google.cloud`. Imports nothing
    but what is above it, where that is one.
    """
    if name in sys.stdlib_module_names:
        return False
    above, _, last = name.rpartition(".")
    if above and not (last and _is_namespace(above)):
        return False
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is None and spec.submodule_search_locations is not None


class _Walk:
    """From a provider's module through everything of its own packages that making it imports, and then
    through what its own functions import.
    """

    def __init__(self, module: str, own: set[str]) -> None:
        self.at_start: set[str] = set()
        self.when_used: set[str] = set()
        self._own = own
        self._home = f"{module}."
        self._seen: set[str] = set()
        self._later: list[str] = []
        found = _imports_of(module)
        if found is None:
            return
        self._seen.add(module)
        at_import, in_factories, in_functions = found
        self._take(in_functions, self.when_used, self._later)
        self._follow(at_import | in_factories, self.at_start)
        self._follow(frozenset(), self.when_used)

    def _follow(self, names: frozenset[str], into: set[str]) -> None:
        queue: list[str] = self._later if into is self.when_used else []
        self._take(names, into, queue)
        while queue and len(self._seen) < _MOST_MODULES:
            module = queue.pop()
            if module in self._seen or (module in sys.modules and not self._is_home(module)):
                continue  # what could be imported once needs nothing more
            self._seen.add(module)
            at_import, _, in_functions = _imports_of(module) or _NOTHING
            self._take(at_import, into, queue)
            if self._is_home(module):
                self._take(in_functions, self.when_used, self._later)

    def _is_home(self, module: str) -> bool:
        return f"{module}.".startswith(self._home)

    def _take(self, names: Iterable[str], into: set[str], queue: list[str]) -> None:
        for name in names:
            top = name.split(".", 1)[0]
            if top not in self._own:
                into.add(".".join(name.split(".")[:2]) if _is_namespace(top) else top)
            elif into is self.at_start or self._is_home(name):
                parts = name.split(".")
                queue += [".".join(parts[:length]) for length in range(2, len(parts) + 1)]


_Imports = tuple[frozenset[str], frozenset[str], frozenset[str]]
_NOTHING: _Imports = (frozenset(), frozenset(), frozenset())


@cache
def _imports_of(module: str) -> _Imports | None:
    """What a module imports: when it is imported, in its factories, in its other functions. `None`
    where there is no source of it.
    """
    file = _file_of(module)
    if file is None:
        return None
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    reader = _Reader(package)
    reader.visit(tree)
    return frozenset(reader.at_import), frozenset(reader.in_factories), frozenset(reader.in_functions)


def _file_of(module: str) -> Path | None:
    top, *rest = module.split(".")
    spec = importlib.util.find_spec(top)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, *rest)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


class _Reader(ast.NodeVisitor):
    """The imports of one module, apart by when they are carried out."""

    def __init__(self, package: str) -> None:
        self.at_import: set[str] = set()
        self.in_factories: set[str] = set()
        self.in_functions: set[str] = set()
        self._package = package
        self._into = self.at_import

    def visit_Import(self, node: ast.Import) -> None:
        self._into.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            parts = self._package.split(".")
            base = parts[: len(parts) - node.level + 1]
            module = ".".join([*base, *filter(None, [module])])
        if not _is_namespace(module):
            self._into.add(module)
        # What is taken from a package may be a module of it.
        self._into.update(f"{module}.{alias.name}" for alias in node.names if _is_module(module, alias.name))

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        before = self._into
        at_top = before is self.at_import
        self._into = self.in_factories if at_top and node.name in _FACTORIES else self.in_functions
        self.generic_visit(node)
        self._into = before

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> None:
        tolerant = any(
            handler.type is None or any(name in ast.unparse(handler.type) for name in _TOLERANT)
            for handler in node.handlers
        )
        for each in [*([] if tolerant else node.body), *node.orelse, *node.finalbody]:
            self.visit(each)


def _is_module(package: str, name: str) -> bool:
    if not package:
        return False
    return _is_namespace(package) or _file_of(f"{package}.{name}") is not None
