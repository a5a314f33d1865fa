"""Resolving N providers: from objects, from files, and again after one overlay changed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import yaml
from harness import Row, time_functions
from workload import API, HARDWARE, Case, Plugin, case, floor, overlay_values, stack_text

from stackconf import Manager, Provider
from stackconf.resolve.resolve import Overlay, Resolved, resolve_provider
from stackconf.stackfile.model import load
from stackconf.store.base import Configuration, State

SIZES = (10, 100, 1000)
FLOOR = "merge by hand + pydantic-core"


def from_objects() -> Iterator[Row]:
    """Resolving, hooks included, over the hand-written floor: each provider by itself, and all of
    them by the manager, in a thread that can be left behind if a plugin hangs.
    """
    for n in SIZES:
        yield from _from_objects(case(n), n, "one type")
    yield from _from_objects(case(100, types=100), 100, "a type for each")


def _from_objects(given: Case, n: int, what: str) -> Iterator[Row]:
    by_hand = floor(given.values, given.classes)
    plugin = Plugin(())
    providers = [
        Provider(each.api, str(each.provider_id), each.provider_type) for each in given.stack.providers
    ]

    def hooks_by_hand() -> None:
        for provider, config in zip(providers, by_hand(), strict=True):
            plugin.default_config(provider, HARDWARE)
            plugin.validate_user_config(provider, {}, config)

    def resolve() -> Manager:
        manager = Manager(given.stack, given.registry, hardware=HARDWARE)
        manager.resolve(given.overlays)
        return manager

    def each() -> list[Resolved]:
        registry, stack, overlays = given.registry, given.stack, given.overlays
        return [
            resolve_provider(
                entry.provider,
                registry,
                HARDWARE,
                entry=entry,
                stack_values=entry.config,
                overlays=overlays[entry.key],
                stack=stack,
            )
            for entry in stack.providers
        ]

    resolved = resolve().resolve(given.overlays)
    assert not resolved.errors, resolved.errors
    assert [each.config for each in resolved.providers.values()] == by_hand()
    assert [found.config for found in each()] == by_hand()
    times = time_functions({"resolve": resolve, "each": each, "floor": by_hand, "hooks": hooks_by_hand})
    subject = f"resolve {n} providers, {what}"
    yield Row("objects", subject, FLOOR, *times["each"].over(times["floor"]), limit=3.0)
    subject = f"{subject}, surviving a hang"
    yield Row("objects", subject, FLOOR, *times["resolve"].over(times["floor"]), limit=3.0)
    yield Row("objects", subject, "that + its hooks, called plainly", *times["resolve"].over(times["hooks"]))


def linear() -> Iterator[Row]:
    """The same resolve, per provider, at 1 000 and at 100 providers: 1 is linear."""
    small, large = case(100), case(1000)
    times = time_functions(
        {
            "100": lambda: Manager(small.stack, small.registry, hardware=HARDWARE).resolve(small.overlays),
            "1000": lambda: Manager(large.stack, large.registry, hardware=HARDWARE).resolve(large.overlays),
        }
    )
    median, best = times["1000"].over(times["100"])
    yield Row("linear", "one provider of 1000", "one of 100", median / 10, best / 10, limit=1.5)


def from_files() -> Iterator[Row]:
    """Reading the stack file and resolving, over the C loader's parse of the same bytes alone."""
    with tempfile.TemporaryDirectory() as folder:
        for n in SIZES:
            path = Path(folder, f"{n}.yaml")
            path.write_text(stack_text(n), encoding="utf-8")
            given = case(n)
            yield _from_file(path, given, n)


def _from_file(path: Path, given: Case, n: int) -> Row:
    def resolve() -> Manager:
        manager = Manager(load(path), given.registry, hardware=HARDWARE)
        manager.resolve(given.overlays)
        return manager

    def parse() -> object:
        with path.open("rb") as file:
            return yaml.load(file, Loader=yaml.CSafeLoader)

    resolution = resolve().resolve(given.overlays)
    assert not resolution.errors, resolution.errors
    assert len(resolution.providers) == n
    times = time_functions({"resolve": resolve, "parse": parse})
    median, best = times["resolve"].over(times["parse"])
    return Row("files", f"load and resolve {n} providers", "yaml CSafeLoader alone", median, best, limit=1.3)


def incremental() -> Iterator[Row]:
    """One overlay of 1 000 changed: what the next resolve costs, over the full one."""
    given = case(1000)
    manager = Manager(given.stack, given.registry, hardware=HARDWARE)
    key = f"{API}/provider-500"
    numbers = count()
    before = manager.resolve(given.overlays)

    def change_one() -> object:
        overlay = Overlay("site", next(numbers), {"url": f"http://other-{next(numbers)}.example:1"})
        return manager.resolve({**given.overlays, key: (overlay,)})

    after = change_one()
    changed = [name for name, each in after.providers.items() if each is not before.providers[name]]
    assert changed == [key], changed

    def full() -> object:
        return Manager(given.stack, given.registry, hardware=HARDWARE).resolve(given.overlays)

    state = _state()
    kept = Manager(given.stack, given.registry, hardware=HARDWARE)
    kept.resolve(kept.overlays(state))

    def change_registered() -> object:
        value = f"http://other-{next(numbers)}.example:1"
        one = Configuration("one", _configured({500: {"url": value}}), revision=next(numbers) + 2)
        return kept.resolve(
            kept.overlays(State({**state.configurations, "one": one}, (*state.assigned, "one")))
        )

    def nothing() -> object:
        return kept.resolve(kept.overlays(state))

    times = time_functions({"one": change_one, "registered": change_registered, "full": full})
    for name, what in (
        ("one", "one overlay changed"),
        ("registered", "one registered configuration changed"),
    ):
        median, best = times[name].over(times["full"])
        yield Row(
            "incremental", f"{what}, 1000 providers", "full resolve", median * 100, best * 100, "%", 2.0
        )
    kept.resolve(kept.overlays(state))
    times = time_functions({"nothing": nothing, "full": full})
    median, best = times["nothing"].over(times["full"])
    yield Row("incremental", "nothing changed, 1000 providers", "full resolve", median * 100, best * 100, "%")


def _state() -> State:
    """One configuration for every provider, as a store gives it back."""
    site = Configuration("site", _configured({n: overlay_values(n) for n in range(1000)}), revision=1)
    return State({"site": site}, ("site",))


def _configured(values: dict[int, dict[str, object]]) -> dict[str, list[dict[str, object]]]:
    return {
        API: [
            {"provider_id": f"provider-{n}", "provider_type": "remote::type-0", "config": config}
            for n, config in values.items()
        ]
    }
