"""Other tools on the same workload, as far as each can do it; those not installed are skipped.

What each does of the four layers, the projection to user fields, the validation and the origins:

* stackconf: all of it, hooks included; origins are computed from the kept layers when asked for.
* pydantic-settings: the layers (as sources) and the validation.
* dynaconf: the layers; validated by the same pydantic class afterwards.
* OmegaConf: the layers over a structured config; its own type checks, no bounds, secrets or URLs.
* Hydra: the same through `compose`, every layer from a file.
* llama-stack 0.2.12: the stack file's layer only: environment references, its run configuration
  and each provider's config class.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from harness import Row, time_functions
from workload import (
    API,
    DEFAULTS,
    HARDWARE,
    USER_ATTEMPTS,
    Case,
    Config,
    case,
    floor,
    overlay_values,
    stack_text,
)

from stackconf import Manager
from stackconf.fields import plan_of
from stackconf.resolve.projection import project
from stackconf.stackfile.model import load

Subject: TypeAlias = Callable[[], object]
Data: TypeAlias = dict[str, Any]

OBJECTS_FLOOR = "merge by hand + pydantic-core"
FILES_FLOOR = "yaml CSafeLoader alone"


def peers() -> Iterator[Row]:
    """Each peer over the floor, from objects and from files."""
    missing = [name for name, module in MODULES.items() if find_spec(module) is None]
    for n in (10, 100):
        yield from _compared("peers, objects", f"{n} providers", OBJECTS_FLOOR, _objects(case(n), n))
    with tempfile.TemporaryDirectory() as folder:
        for n in (10, 100):
            subjects = _files(Path(folder), case(n), n)
            yield from _compared("peers, files", f"{n} providers from files", FILES_FLOOR, subjects)
    for name in missing:
        yield Row("peers", f"skipped: {name} is not installed here", "", None, None)


def _compared(benchmark: str, what: str, against: str, subjects: Mapping[str, Subject]) -> Iterator[Row]:
    times = time_functions(subjects, rounds=7)
    base = times.pop(against)
    for name, timing in times.items():
        yield Row(benchmark, f"{name}: {what}", against, *timing.over(base))


def _objects(given: Case, n: int) -> dict[str, Subject]:
    stack, user = given.values, [_projected(overlay_values(number)) for number in range(n)]
    subjects: dict[str, Subject] = {
        OBJECTS_FLOOR: floor(given.values, given.classes),
        "stackconf": lambda: Manager(given.stack, given.registry, hardware=HARDWARE).resolve(given.overlays),
    }
    makers = {
        "pydantic-settings": _pydantic_settings,
        "dynaconf": _dynaconf,
        "OmegaConf": _omegaconf,
        "llama-stack": _llama_stack,
    }
    for name, make in makers.items():
        if find_spec(MODULES[name]) is not None:
            subjects[name] = make(stack, user)
    return subjects


def _files(folder: Path, given: Case, n: int) -> dict[str, Subject]:
    path = folder / f"stack{n}.yaml"
    path.write_text(stack_text(n), encoding="utf-8")
    user = [_projected(overlay_values(number)) for number in range(n)]

    def parse() -> object:
        with path.open("rb") as file:
            return yaml.load(file, Loader=yaml.CSafeLoader)

    def stackconf() -> object:
        return Manager(load(path), given.registry, hardware=HARDWARE).resolve(given.overlays)

    subjects: dict[str, Subject] = {FILES_FLOOR: parse, "stackconf": stackconf}
    makers = {
        "pydantic-settings": _pydantic_settings_files,
        "dynaconf": _dynaconf_files,
        "OmegaConf": _omegaconf_files,
        "Hydra": _hydra_files,
        "llama-stack": _llama_stack_files,
    }
    for name, make in makers.items():
        if find_spec(MODULES[name]) is not None:
            subjects[name] = make(folder, path, user)
    return subjects


MODULES = {
    "pydantic-settings": "pydantic_settings",
    "dynaconf": "dynaconf",
    "OmegaConf": "omegaconf",
    "Hydra": "hydra",
    "llama-stack": "llama_stack",
}


def _projected(overlay: Data) -> Data:
    return project(overlay, plan_of(Config))[0]


def _by_id(folder: Path, name: str, values: list[Data]) -> Path:
    """A file of one layer, `providers` by id: none of these tools merges lists of providers."""
    file = folder / f"{name}{len(values)}.yaml"
    file.write_text(_dumped({"providers": _named(values)}), encoding="utf-8")
    return file


def _named(values: list[Data]) -> dict[str, Data]:
    return {f"provider_{number}": each for number, each in enumerate(values)}


def _stack_layer(path: Path) -> list[Data]:
    stack = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)["providers"][API]
    return [each["config"] for each in stack]


def _dumped(data: Data) -> str:
    """As YAML without aliases, which a layer that repeats for every provider would become."""
    return yaml.safe_dump(json.loads(json.dumps(data)), sort_keys=False)


def _validated(merged: Mapping[str, Any]) -> list[Config]:
    return [Config.model_validate(each) for each in merged.values()]


# pydantic-settings


def _settings_class() -> Any:
    from pydantic_settings import BaseSettings, InitSettingsSource

    class Settings(BaseSettings, Config):
        """The 12 fields, their values from sources: the first one wins."""

        layers: Any = None

        @classmethod
        def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> Any:
            layers = init_settings.init_kwargs["layers"]
            return tuple(InitSettingsSource(settings_cls, layer) for layer in layers)

    return Settings


def _pydantic_settings(stack: list[Data], user: list[Data]) -> Subject:
    settings = _settings_class()
    assert settings(layers=(user[0], stack[0], DEFAULTS)).retry.attempts == USER_ATTEMPTS
    return lambda: [settings(layers=(over, given, DEFAULTS)) for over, given in zip(user, stack, strict=True)]


def _pydantic_settings_files(folder: Path, path: Path, user: list[Data]) -> Subject:
    from pydantic_settings import YamlConfigSettingsSource

    settings = _settings_class()
    file = _by_id(folder, "settings", _stack_layer(path))

    def resolve() -> list[Any]:
        stack = YamlConfigSettingsSource(settings, yaml_file=file)()["providers"]
        pairs = zip(user, stack.values(), strict=True)
        return [settings(layers=(over, given, DEFAULTS)) for over, given in pairs]

    assert resolve()[0].retry.attempts == USER_ATTEMPTS
    return resolve


# dynaconf


def _dynaconf(stack: list[Data], user: list[Data]) -> Subject:
    from dynaconf import Dynaconf

    layers = [_named(values) for values in ([DEFAULTS] * len(stack), stack, user)]
    kept = pickle.dumps(layers)  # dynaconf changes what it is given, so each run gets its own

    def resolve() -> list[Config]:
        settings = Dynaconf(loaders=[], core_loaders=[], load_dotenv=False)
        for layer in pickle.loads(kept):
            settings.update({"providers": layer}, merge=True)
        return _validated(settings.PROVIDERS.to_dict())

    assert resolve()[0].retry.attempts == USER_ATTEMPTS
    return resolve


def _dynaconf_files(folder: Path, path: Path, user: list[Data]) -> Subject:
    from dynaconf import Dynaconf

    file = _by_id(folder, "dynaconf", _stack_layer(path))
    kept = pickle.dumps((_named([DEFAULTS] * len(user)), _named(user)))

    def resolve() -> list[Config]:
        hardware, over = pickle.loads(kept)
        settings = Dynaconf(
            settings_files=[str(file)], PROVIDERS=hardware, merge_enabled=True, load_dotenv=False
        )
        settings.update({"providers": over}, merge=True)
        return _validated(settings.PROVIDERS.to_dict())

    assert resolve()[0].retry.attempts == USER_ATTEMPTS
    return resolve


# OmegaConf and Hydra


@dataclasses.dataclass
class RetryData:
    attempts: int = 3
    backoff_s: float = 0.5
    jitter: bool = True


@dataclasses.dataclass
class KvStoreData:
    kind: str = "sqlite"
    db_path: str = "kv.db"
    namespace: str | None = None


@dataclasses.dataclass
class ConfigData:
    url: str = "http://localhost:11434"
    api_key: str | None = None
    mode: str = "safe"
    threads: int = 4
    batch_size: int = 32
    context_length: int = 4096
    timeout_s: float = 30.0
    models: list[str] = dataclasses.field(default_factory=list)
    retry: RetryData = dataclasses.field(default_factory=RetryData)
    kvstore: KvStoreData = dataclasses.field(default_factory=KvStoreData)
    label: str = ""
    keep_alive: bool = True


def _omegaconf(stack: list[Data], user: list[Data]) -> Subject:
    from omegaconf import OmegaConf

    def resolve() -> list[Any]:
        return [
            OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(ConfigData), DEFAULTS, given, over))
            for given, over in zip(stack, user, strict=True)
        ]

    assert resolve()[0].retry.attempts == USER_ATTEMPTS
    return resolve


def _omegaconf_files(folder: Path, path: Path, user: list[Data]) -> Subject:
    from omegaconf import OmegaConf

    file = _by_id(folder, "omegaconf", _stack_layer(path))

    def resolve() -> list[Any]:
        stack = OmegaConf.load(file).providers
        schema = OmegaConf.structured(ConfigData)
        pairs = zip(stack.values(), user, strict=True)
        return [OmegaConf.to_object(OmegaConf.merge(schema, DEFAULTS, *pair)) for pair in pairs]

    assert resolve()[0].retry.attempts == USER_ATTEMPTS
    return resolve


def _hydra_files(folder: Path, path: Path, user: list[Data]) -> Subject:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    layers = {"hardware": [DEFAULTS] * len(user), "stack": _stack_layer(path), "user": user}
    names = [_by_id(folder, f"hydra_{name}", values).stem for name, values in layers.items()]
    main = folder / f"main{len(user)}.yaml"
    main.write_text(_dumped({"defaults": [*names, "_self_"]}), encoding="utf-8")

    def resolve() -> list[Any]:
        with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
            providers = compose(config_name=main.stem).providers
        schema = OmegaConf.structured(ConfigData)
        return [OmegaConf.to_object(OmegaConf.merge(schema, each)) for each in providers.values()]

    assert resolve()[0].retry.attempts == USER_ATTEMPTS
    return resolve


# llama-stack


def _llama_stack(stack: list[Data], user: list[Data]) -> Subject:
    del user
    return lambda: _llama_stack_run(_run_config(stack))


def _llama_stack_files(folder: Path, path: Path, user: list[Data]) -> Subject:
    del folder, user

    def resolve() -> list[Config]:
        return _llama_stack_run(yaml.safe_load(path.read_text(encoding="utf-8")))

    return resolve


def _run_config(stack: list[Data]) -> Data:
    providers = [
        {"provider_id": f"provider-{number}", "provider_type": "remote::type-0", "config": values}
        for number, values in enumerate(stack)
    ]
    return {"version": "2", "image_name": "bench", "apis": [API], "providers": {API: providers}}


def _llama_stack_run(data: Data) -> list[Config]:
    os.environ.setdefault("LLAMA_STACK_LOGGING", "all=error")
    from llama_stack.distribution.configure import parse_and_maybe_upgrade_config
    from llama_stack.distribution.stack import replace_env_vars

    run = parse_and_maybe_upgrade_config({**replace_env_vars(data), "version": "2"})
    return [Config(**each.config) for each in run.providers[API]]
