"""Which providers follow others: those whose defaults are derived from the configurations of providers
that come before them, by the dependencies of their types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from stackconf.registry.registry import Owned

if TYPE_CHECKING:
    from collections.abc import Collection

    from pydantic import BaseModel

    from stackconf.registry.registry import Registry
    from stackconf.resolve.resolve import Resolved
    from stackconf.types import Provider


@frozen
class Following:
    """Who follows whom in one stack, by key."""

    followed: Mapping[str, tuple[str, ...]] = field(factory=dict)
    """For each provider that follows, those that it follows."""
    waves: tuple[tuple[str, ...], ...] = ()
    """Those that follow, each after all that it follows."""

    def given(self, key: str, resolved: Mapping[str, Resolved]) -> dict[Provider, BaseModel]:
        """The configurations from which a provider's defaults are derived."""
        found = (resolved[each] for each in self.followed.get(key, ()))
        return {each.provider: each.config for each in found if each.config is not None}

    def after(self, keys: Collection[str]) -> list[str]:
        """Those that follow one of these, or one that does."""
        touched = {*keys}
        found: list[str] = []
        for wave in self.waves:
            hit = [key for key in wave if not touched.isdisjoint(self.followed[key])]
            found += hit
            touched.update(hit)
        return found


def following(providers: Mapping[str, Provider], registry: Registry) -> Following:
    """Who follows whom; imports the plugins of all. Where apis depend on each other in a circle, of which
    a plan warns, nobody comes first and nobody in it follows.
    """
    followed: dict[str, tuple[str, ...]] = {}
    for key, provider in providers.items():
        owned = registry.find(provider.api, provider.provider_type)
        if isinstance(owned, Owned) and owned.hooks.follows:
            needs = owned.kind.api_dependencies
            followed[key] = tuple(other for other, each in providers.items() if each.api in needs)
    waves: list[tuple[str, ...]] = []
    waiting = {*followed}
    while waiting:
        wave = tuple(key for key in followed if key in waiting and waiting.isdisjoint(followed[key]))
        if not wave:
            wave = tuple(key for key in followed if key in waiting)
            followed.update(dict.fromkeys(wave, ()))
        waves.append(wave)
        waiting -= {*wave}
    return Following(followed, tuple(waves))
