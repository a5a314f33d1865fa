"""The registry: what a registration and an addressed call cost, with 1 000 types about."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pluggy
from harness import Row, time_functions
from workload import API, HARDWARE, Config, Plugin

from stackconf import Provider, ProviderType, hookspecs
from stackconf.registry.registry import Owned, Registry

TYPES = 1000
CALLS = 100


def kinds(count: int) -> list[ProviderType]:
    return [ProviderType(API, f"remote::type-{number}", Config) for number in range(count)]


def registration() -> Iterator[Row]:
    """A plugin registered and made ready to be called, over pluggy's own register of the same."""
    plugins = [Plugin([kind]) for kind in kinds(CALLS)]

    def ours() -> object:
        registry = Registry(plugins=plugins, entry_points=False)
        return [registry.find(API, f"remote::type-{number}") for number in range(CALLS)]

    def pluggys_own() -> object:
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        for plugin in plugins:
            manager.register(plugin)
        return manager

    assert all(isinstance(found, Owned) for found in ours())
    times = time_functions({"ours": ours, "pluggy": pluggys_own})
    median, best = times["ours"].over(times["pluggy"])
    yield Row("registry", "register a plugin, ready to be called", "pluggy's register", median, best)
    each = times["ours"]
    micro = 1e6 / CALLS
    yield Row("registry", "the same, each", "", each.median * micro, each.best * micro, "us", 100.0)


def addressed_call() -> Iterator[Row]:
    """`default_config` for one provider, over the plain method and over pluggy with one plugin."""
    one, many = _ready([Plugin(kinds(TYPES))]), _ready([Plugin([kind]) for kind in kinds(TYPES)])
    provider = Provider(API, "p", "remote::type-500")
    plugin = Plugin(kinds(1))
    alone = pluggy.PluginManager(hookspecs.PROJECT)
    alone.add_hookspecs(hookspecs)
    alone.register(plugin)
    hook = alone.hook.default_config

    def addressed(registry: Registry) -> Callable[[], object]:
        def call() -> None:
            for _ in range(CALLS):
                owned = registry.find(API, "remote::type-500")
                assert isinstance(owned, Owned)
                owned.hooks.default_config(provider, HARDWARE)

        return call

    def direct() -> None:
        for _ in range(CALLS):
            plugin.default_config(provider, HARDWARE)

    def plain() -> None:
        for _ in range(CALLS):
            hook(provider=provider, hardware=HARDWARE)

    times = time_functions(
        {"one": addressed(one), "many": addressed(many), "direct": direct, "pluggy": plain}
    )
    micro = 1e6 / CALLS
    for name, what in (("one", "1000 types of one plugin"), ("many", "1000 plugins")):
        subject = f"addressed call, {what}"
        yield Row("registry", subject, "the plain method", *times[name].over(times["direct"]))
        yield Row("registry", subject, "pluggy, one plugin", *times[name].over(times["pluggy"]))
        mine = times[name]
        yield Row("registry", f"{subject}, each", "", mine.median * micro, mine.best * micro, "us", 10.0)


def _ready(plugins: list[Plugin]) -> Registry:
    """A registry in which every type has been asked for once."""
    registry = Registry(plugins=plugins, entry_points=False)
    for number in range(TYPES):
        assert isinstance(registry.find(API, f"remote::type-{number}"), Owned)
    return registry
