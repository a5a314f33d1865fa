"""What the rest of this distribution needs of upstream, the same for every version."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

    from stackconf.stackfile.env import Grammar
    from stackconf_ogx.internals.running import Running, Tell, Wanted

Kind: TypeAlias = Literal["remote", "inline"]
KeyPath: TypeAlias = tuple[str | int, ...]

_MOST_MISSING = 200
EXCLUSIVE = frozenset({"vector_io/inline::milvus", "vector_io/inline::qdrant", "vector_io/inline::chromadb"})
"""Types of both that lock their files, so that there cannot be two providers on the same ones."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without upstream's warnings and log lines: what matters of them becomes an issue."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), own_log():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def own_log() -> Iterator[None]:
    """With our loggers as they were: upstream sets the level of every logger there is when it sets up
    its own.
    """
    ours = [logging.getLogger(name) for name in logging.root.manager.loggerDict if _is_ours(name)]
    before = [(each, each.level, each.propagate) for each in ours]
    try:
        yield
    finally:
        for each, level, propagate in before:
            each.setLevel(level)
            each.propagate = propagate


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] == "stackconf"


def enabled(entry: Mapping[str, Any]) -> bool:
    """Whether upstream makes a provider of an entry of the file."""
    return entry.get("provider_id") not in (None, "", "__disabled__")


@frozen
class Spec:
    """One provider type, as upstream declares it."""

    api: str
    provider_type: str
    config_class: str
    """Dotted, `package.module.Class`."""
    module: str
    """What is imported when a provider of the type is made."""
    packages: tuple[str, ...] = ()
    """What pip installs for it; some entries hold several requirements and options of pip."""
    needs: tuple[str, ...] = ()
    """The apis without which it cannot be made."""
    remote: bool = False
    deprecated: str = ""
    refused: str = ""
    """Why upstream makes no provider of it any more."""

    @property
    def key(self) -> str:
        """`api/provider_type`."""
        return f"{self.api}/{self.provider_type}"


class Internals(Protocol):
    """The inside of one version of llama-stack or OGX."""

    label: str
    """Name and version, as people see them."""
    grammar: Grammar
    """The form of references to the environment that it reads."""
    package: str
    """The import package: `ogx`, `llama_stack`."""
    file_class: type[BaseModel]
    """The class that reads a whole stack file."""
    routed: Mapping[str, str]
    """For each api that a routing table serves, the api of the providers behind it."""
    own_apis: frozenset[str]
    """The apis that the server itself implements; they take no provider."""
    knows_modules: bool
    """Whether a provider may name its `module:`."""
    resources: ClassVar[Mapping[str, str]]
    """For each list of the file whose entries are refused where they name a provider that is not there,
    the api of that provider.
    """
    serves_all_listed: bool
    """Whether the server refuses to start where `apis` has one that nobody serves."""
    wants_tls: bool
    """Whether the server refuses to answer without TLS, unless the file says `insecure`."""
    logs_requests: bool
    """Whether its application has a line in its log for each request; uvicorn may do that instead."""
    restarting: frozenset[str]
    """The types of which there cannot be two providers at once, by key."""

    def server(self, wanted: Wanted, tell: Tell) -> Running:
        """A server, to be started in this process."""
        raise NotImplementedError

    def builtin(self) -> list[Spec]:
        """Every provider type that comes along."""
        raise NotImplementedError

    def apis(self) -> frozenset[str]:
        """Every api that a file may name."""
        raise NotImplementedError

    def spec_of_file(self, data: Mapping[str, Any], api: str, kind: Kind, name: str) -> Spec:
        """The type that a file of `external_providers_dir` declares. Raises whatever is wrong with it."""
        raise NotImplementedError

    def spec_of_module(self, module: str, api: str, provider_type: str) -> Spec | None:
        """The type of a provider's `module:`; `None` where the module has other types only. Imports it,
        and raises whatever that raises.
        """
        raise NotImplementedError

    def load_apis(self, folder: Path) -> list[Spec]:
        """Make the apis of `external_apis_dir` known, and give the types that come with them."""
        raise NotImplementedError

    def replaced(self, data: dict[str, Any]) -> dict[str, Any]:
        """A whole file with its references replaced, as the server does it. Raises `MissingVariable`."""
        raise NotImplementedError

    def by_looks(self, text: str) -> object:
        """What upstream makes of a text that came from the environment."""
        raise NotImplementedError

    def store_families(self, data: Mapping[str, Any]) -> Mapping[str, str]:
        """For each storage backend of a file, `kv` or `sql`; none where what it says of them is wrong."""
        raise NotImplementedError

    def store_reference(self, value: object) -> tuple[str, str] | None:
        """The backend that an object of a config refers to, and of which family it has to be."""
        raise NotImplementedError


class MissingVariable(Exception):
    """A variable without which a file cannot be read. `path` is upstream's: `a.b[0].c`."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.name, self.path = name, path


def replaced_as_far_as_possible(
    internals: Internals, data: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, list[tuple[str, KeyPath]]]:
    """The file with its references replaced, and every variable that is missing with its path; the
    values there are empty text. `None` where the end of it cannot be told.
    """
    remaining = deepcopy(dict(data))
    missing: list[tuple[str, KeyPath]] = []
    for _ in range(_MOST_MISSING):
        try:
            return internals.replaced(deepcopy(remaining)), missing
        except MissingVariable as error:
            path = _leaf_of(error.path, remaining)
            missing.append((error.name, path or ()))
            if path is None:
                return None, missing
            _put(remaining, path, "")
    return None, missing


def _leaf_of(text: str, data: object) -> KeyPath | None:
    """The path that upstream's text stands for. Keys may have dots in them, so the data decides."""
    if not text:
        return ()
    if isinstance(data, dict):
        for key, inner in data.items():
            name = str(key)
            rest = text[len(name) :]
            if text.startswith(name) and (not rest or rest[0] in ".["):
                below = _leaf_of(rest.removeprefix("."), inner)
                if below is not None:
                    return (key, *below)
    if isinstance(data, list) and text.startswith("["):
        number, _, rest = text[1:].partition("]")
        if number.isdecimal() and int(number) < len(data):
            below = _leaf_of(rest.removeprefix("."), data[int(number)])
            if below is not None:
                return (int(number), *below)
    return None


def _put(data: Any, path: KeyPath, value: object) -> None:
    for step in path[:-1]:
        data = data[step]
    data[path[-1]] = value
