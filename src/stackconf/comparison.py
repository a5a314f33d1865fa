"""One stack on several machines: what each provider would have, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from stackconf.errors import InvalidConfig
from stackconf.resolve.origins import origins

if TYPE_CHECKING:
    from stackconf.hardware.facts import Hardware
    from stackconf.manager import Manager, Resolution
    from stackconf.store.base import Store
    from stackconf.types import Issue, Origin, Provider


@frozen
class Row:
    """One field on every machine. `origins` are in the machines' order; `None`: it has none there,
    because the provider is invalid on that machine or the field belongs to another variant.
    """

    path: str
    origins: tuple[Origin | None, ...]

    @property
    def differs(self) -> bool:
        """Whether it has not the same value everywhere. `1`, `1.0` and `true` are three values."""
        first = self.origins[0]
        return any(not _same(first, each) for each in self.origins[1:])


@frozen
class ComparedProvider:
    """One provider on every machine."""

    provider: Provider
    valid: tuple[bool, ...]
    rows: tuple[Row, ...]

    @property
    def differing(self) -> tuple[Row, ...]:
        """The rows that are not the same everywhere."""
        return tuple(row for row in self.rows if row.differs)


@frozen
class Machine:
    """A machine that is compared, and what is wrong with the stack there and not everywhere."""

    name: str
    hardware: Hardware
    issues: tuple[Issue, ...]


@frozen
class Comparison:
    """A stack on several machines. `issues` are those that it has on each of them."""

    stack: str
    revision: int
    machines: tuple[Machine, ...]
    providers: tuple[ComparedProvider, ...]
    issues: tuple[Issue, ...] = ()


def compare(manager: Manager, store: Store, machines: Mapping[str, Hardware]) -> Comparison:
    """Resolve the head revision for each machine. Raises `InvalidConfig` when there is none."""
    if not machines:
        raise InvalidConfig("there is no machine to compare on")
    revision = store.read()
    overlays = manager.overlays(revision.state)
    resolutions = [manager.on(hardware).resolve(overlays) for hardware in machines.values()]
    everywhere = tuple(
        issue
        for issue in resolutions[0].issues
        if all(issue in resolution.issues for resolution in resolutions[1:])
    )
    return Comparison(
        manager.stack.name,
        revision.number,
        tuple(
            Machine(name, hardware, tuple(each for each in resolution.issues if each not in everywhere))
            for (name, hardware), resolution in zip(machines.items(), resolutions, strict=True)
        ),
        tuple(_compared(key, resolutions) for key in manager.provider_keys()),
        everywhere,
    )


def _compared(key: str, resolutions: Sequence[Resolution]) -> ComparedProvider:
    each = [resolution.providers[key] for resolution in resolutions]
    stack = resolutions[0].stack
    columns = [
        {} if resolved.config is None else {origin.path: origin for origin in origins(resolved, stack)}
        for resolved in each
    ]
    paths = dict.fromkeys(path for column in columns for path in column)
    return ComparedProvider(
        each[0].provider,
        tuple(resolved.valid for resolved in each),
        tuple(Row(path, tuple(column.get(path) for column in columns)) for path in paths),
    )


def _same(one: Origin | None, other: Origin | None) -> bool:
    if one is None or other is None:
        return one is other
    return repr(one.value) == repr(other.value)
