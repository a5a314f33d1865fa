"""What work costs, counted in Python calls: the same on every machine, and no noise."""

import gc
import sys
from pathlib import Path

import pytest

from stackconf import Manager, Provider, ProviderType, hookimpl
from stackconf.registry.registry import Owned, Registry
from stackconf.resolve.resolve import Overlay, resolve_provider
from stackconf.store.base import Configuration, State


@pytest.fixture
def workload(monkeypatch):
    """The workload of the benchmarks."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import workload

    return workload


def calls_of(function):
    """How many Python functions are called while `function` runs; those of a collection are not its own."""
    count = 0

    def profile(_frame, event, _argument):
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    gc.disable()  # Hypothesis calls functions of its own around each collection
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return count


def registry_of(workload, types, plugins):
    kinds = [ProviderType(workload.API, f"remote::type-{n}", workload.Config) for n in range(types)]
    share = types // plugins
    groups = [kinds[start : start + share] for start in range(0, types, share)]
    return Registry(plugins=[workload.Plugin(group) for group in groups], entry_points=False)


@pytest.mark.parametrize("plugins", [1, 1000])
def test_an_addressed_call_costs_the_same_among_a_thousand_types(workload, plugins):
    provider = Provider(workload.API, "p", "remote::type-0")

    def cost(registry):
        owned = registry.find(workload.API, "remote::type-0")
        assert isinstance(owned, Owned)
        return calls_of(
            lambda: registry.find(workload.API, "remote::type-0").hooks.default_config(
                provider, workload.HARDWARE
            )
        )

    alone = cost(registry_of(workload, 1, 1))
    assert alone > 0
    assert cost(registry_of(workload, 1000, plugins)) == alone


def test_finding_an_owner_does_not_look_through_the_others(workload):
    def cost(types):
        registry = registry_of(workload, types, types)
        registry.find(workload.API, "remote::type-1")
        return calls_of(lambda: registry.find(workload.API, "remote::type-0"))

    assert cost(1000) == cost(10)


def test_resolving_grows_linearly(workload):
    def cost(n):
        given = workload.case(n)

        def resolve():
            for entry in given.stack.providers:
                provider = Provider(entry.api, entry.provider_id, entry.provider_type)
                overlays = given.overlays[provider.key]
                resolved = resolve_provider(
                    provider,
                    given.registry,
                    workload.HARDWARE,
                    entry=entry,
                    stack_values=entry.config,
                    overlays=overlays,
                    stack=given.stack,
                )
                assert resolved.valid

        resolve()
        return calls_of(resolve)

    assert cost(60) == pytest.approx(2 * cost(30), rel=0.02)


class Asked:
    """A plugin that remembers whom it was asked about."""

    def __init__(self, provides):
        self.provides = tuple(provides)
        self.keys = []

    @hookimpl
    def default_config(self, provider):
        self.keys.append(provider.key)
        return {"threads": 2}


@pytest.fixture
def asked(workload):
    """A manager of 50 providers, resolved under one configuration for all, and its plugin."""
    given = workload.case(50)
    plugin = Asked([ProviderType(workload.API, "remote::type-0", workload.Config)])
    manager = Manager(given.stack, Registry(plugins=[plugin], entry_points=False), hardware=workload.HARDWARE)
    manager.resolve(given.overlays)
    assert len(plugin.keys) == 50
    plugin.keys.clear()
    return manager, plugin, given


def test_one_changed_overlay_resolves_one_provider(asked, workload):
    manager, plugin, given = asked
    key = f"{workload.API}/provider-7"
    changed = manager.resolve({**given.overlays, key: (Overlay("site", 2, {"threads": 9}),)})
    assert plugin.keys == [key]
    assert changed.providers[key].config.threads == 9


def test_nothing_changed_resolves_nothing(asked):
    manager, plugin, given = asked
    equal = {
        key: tuple(Overlay(o.name, o.revision, dict(o.values)) for o in listed)
        for key, listed in given.overlays.items()
    }
    assert manager.resolve(equal).providers
    assert plugin.keys == []


def test_a_registered_configuration_resolves_its_own_providers(workload):
    given = workload.case(50)
    plugin = Asked([ProviderType(workload.API, "remote::type-0", workload.Config)])
    manager = Manager(given.stack, Registry(plugins=[plugin], entry_points=False), hardware=workload.HARDWARE)

    def configuration(name, numbers, threads, revision):
        entries = [
            {
                "provider_id": f"provider-{n}",
                "provider_type": "remote::type-0",
                "config": {"threads": threads},
            }
            for n in numbers
        ]
        return Configuration(name, {workload.API: entries}, revision=revision)

    site = configuration("site", range(50), 3, 1)
    manager.resolve(manager.overlays(State({"site": site}, ("site",))))
    plugin.keys.clear()
    one = configuration("one", [7], 9, 2)
    both = State({"site": site, "one": one}, ("site", "one"))
    key = f"{workload.API}/provider-7"
    assert manager.resolve(manager.overlays(both)).providers[key].config.threads == 9
    assert plugin.keys == [key]
    turned = State(both.configurations, ("one", "site"))
    assert manager.resolve(manager.overlays(turned)).providers[key].config.threads == 3
    assert plugin.keys == [key, key]


def test_the_benchmarks_compare_equal_results(workload):
    for types in (1, 3):
        given = workload.case(6, types=types)
        resolution = Manager(given.stack, given.registry, hardware=workload.HARDWARE).resolve(given.overlays)
        assert resolution.errors == ()
        by_hand = workload.floor(given.values, given.classes)()
        assert [each.config for each in resolution.providers.values()] == by_hand


def test_every_benchmark_can_be_imported(workload):
    import run

    assert run.shown(2.0, "x") == "x2.00"
