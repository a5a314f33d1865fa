"""Configurations that distributions ship as data: found by entry point, read without running code.

An entry point of the group `stackconf.configurations` names a package (`"acme_ai.profiles"`); each
YAML file in that package's folder is one configuration, named `<entry point>/<file stem>`:

    description: One 80 GB card
    provenance: {source: "https://acme.example/tuning", verified: true}
    hardware:
      cards: {slug: h100-80gb-sxm, count: 1}
    providers:
      inference:
      - provider_id: ollama
        config: {num_ctx: 32768}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from stackconf.errors import InvalidConfig, PluginLoadError
from stackconf.fitting import Requirement, read_requirement
from stackconf.registry.metadata import CONFIGURATIONS

if TYPE_CHECKING:
    from stackconf.registry.metadata import Advertised
    from stackconf.registry.registry import Registry


@frozen
class ShippedProvenance:
    """Where the values of a shipped configuration are from, and whether somebody tried them."""

    source: str
    verified: bool = False
    note: str = ""


@frozen
class ShippedConfiguration:
    """A configuration that a distribution ships."""

    name: str
    providers: Mapping[str, Sequence[Mapping[str, Any]]]
    source: str
    description: str = ""
    requirement: Requirement | None = None
    """The machine it is for; `None`: it does not say."""
    provenance: ShippedProvenance | None = None


def shipped_configurations(registry: Registry) -> list[ShippedConfiguration]:
    """Every shipped configuration of the enabled distributions. One that cannot be read is added
    to the registry's problems.
    """
    found: list[ShippedConfiguration] = []
    for entry in registry.advertised():
        if entry.group != CONFIGURATIONS or not entry.enabled:
            continue
        try:
            found.extend(_configurations(entry))
        except (InvalidConfig, ImportError, OSError, ValueError) as error:
            problem = PluginLoadError(
                entry.name,
                f"its configurations cannot be read: {error}",
                distribution=entry.distribution,
                version=entry.version,
            )
            registry.problems.append(problem)
    return found


def _configurations(entry: Advertised) -> Iterator[ShippedConfiguration]:
    from stackconf.given import read_configuration

    for file in sorted(_folder(entry.target).glob("*.yaml")):
        given = read_configuration(file)
        providers: dict[str, list[dict[str, Any]]] = {}
        for each in given.entries:
            item = {"provider_id": each.provider_id, "provider_type": each.provider_type}
            providers.setdefault(each.api, []).append({**item, "config": dict(each.config)})
        data = given.document.data if given.document else {}
        told = data if "providers" in data else {}
        source = f"{entry.distribution} {entry.version}".strip()
        try:
            requirement = read_requirement(told["hardware"]) if "hardware" in told else None
            provenance = _provenance(told["provenance"]) if "provenance" in told else None
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from None
        name, description = f"{entry.name}/{file.stem}", str(told.get("description", ""))
        yield ShippedConfiguration(name, providers, source, description, requirement, provenance)


def _provenance(data: object) -> ShippedProvenance:
    if not isinstance(data, Mapping) or not isinstance(data.get("source"), str):
        raise ValueError("provenance is a mapping with source, verified and note")  # noqa: TRY004 (a file's)
    verified = data.get("verified", False)
    if not isinstance(verified, bool):
        raise ValueError(f"provenance.verified is true or false, not {verified!r}")  # noqa: TRY004 (a file's)
    return ShippedProvenance(data["source"], verified, str(data.get("note", "")))


def _folder(package: str) -> Path:
    """A package's folder. Its parents may be imported by the import system, itself is not."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"`{package}` is not a package folder")
    return Path(next(iter(spec.submodule_search_locations)))
