"""The workload: N providers of one or many types, four layers each, hooks by a real plugin object.

The config class has 12 fields: two nested models, a SecretStr, a URL, bounded integers, a Literal
and a list. The user overlay sets four fields, one of which is not a user field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, Field, HttpUrl, SecretStr, create_model

from stackconf import Issue, Provider, ProviderType, because, hookimpl, user_field
from stackconf.registry.registry import Registry
from stackconf.resolve.resolve import Overlay
from stackconf.stackfile.load import Document
from stackconf.stackfile.model import ProviderEntry, StackFile
from stackconf.testing import machine

if TYPE_CHECKING:
    from stackconf.hardware.facts import Hardware

API = "inference"
HARDWARE = machine(cores=8, memory_gib=32)
MOST_THREADS = 512
USER_ATTEMPTS = 7


class Retry(BaseModel):
    attempts: int = user_field(3, ge=0, le=10)
    backoff_s: float = Field(0.5, ge=0)
    jitter: bool = True


class KvStore(BaseModel):
    kind: Literal["sqlite", "redis"] = "sqlite"
    db_path: str = "kv.db"
    namespace: str | None = None


class Config(BaseModel):
    url: HttpUrl = user_field(HttpUrl("http://localhost:11434"), update="reload")
    api_key: SecretStr | None = None
    mode: Literal["fast", "safe", "eco"] = user_field("safe")
    threads: int = user_field(4, ge=1, le=1024, update="in_place")
    batch_size: int = user_field(32, ge=1, le=65536)
    context_length: int = Field(4096, ge=256, le=10_000_000)
    timeout_s: float = user_field(30.0, gt=0)
    models: list[str] = Field(default_factory=list)
    retry: Retry = Field(default_factory=Retry)
    kvstore: KvStore = Field(default_factory=KvStore)
    label: str = ""
    keep_alive: bool = True


class Plugin:
    """A provider plugin as an author writes one, owner of as many types as are wanted."""

    def __init__(self, provides: Sequence[ProviderType]) -> None:
        self.provides = tuple(provides)

    @hookimpl
    def default_config(
        self,
        provider: Provider,  # noqa: ARG002 (most plugins take it)
        hardware: Hardware,
    ) -> Mapping[str, object]:
        cores = hardware.cpu.usable_physical_cores
        return {
            "threads": because(cores or 4, "one thread for each usable physical core"),
            "batch_size": 64,
            "context_length": because(8192, "fits in the usable memory"),
            "retry": {"backoff_s": 0.25},
        }

    @hookimpl
    def validate_user_config(
        self,
        provider: Provider,  # noqa: ARG002 (as above)
        user_config: Mapping[str, object],
        config: Config,
    ) -> list[Issue]:
        if config.threads > MOST_THREADS and "threads" in user_config:
            return [Issue("more threads than any machine has", path="threads")]
        return []


DEFAULTS: dict[str, Any] = {
    "threads": 8,
    "batch_size": 64,
    "context_length": 8192,
    "retry": {"backoff_s": 0.25},
}


CLASS_LAYER: dict[str, Any] = Config().model_dump(mode="python")
USER_FIELDS = ("url", "mode", "threads", "batch_size", "timeout_s")


class Case(NamedTuple):
    """N providers, ready to be resolved."""

    registry: Registry
    stack: StackFile
    values: list[dict[str, Any]]
    overlays: Mapping[str, tuple[Overlay, ...]]
    classes: list[type[BaseModel]]


def stack_values(number: int) -> dict[str, Any]:
    """What the stack file says about one provider."""
    return {
        "url": f"http://host-{number}.example:8000",
        "api_key": f"key-{number}",
        "timeout_s": 60.0,
        "models": ["llama-3.2-3b", "llama-3.3-70b", "all-minilm"],
        "retry": {"attempts": 4},
        "kvstore": {"db_path": f"/var/lib/stack/{number}.db"},
        "label": f"provider {number}",
    }


def overlay_values(number: int) -> dict[str, Any]:
    """What a user set: three user fields, one of them nested, and one that is none."""
    return {
        "url": f"http://user-{number}.example:9000",
        "mode": "fast",
        "retry": {"attempts": USER_ATTEMPTS},
        "context_length": 16384,
    }


def config_classes(count: int) -> list[type[BaseModel]]:
    """`count` classes of the same fields."""
    if count == 1:
        return [Config]
    return [create_model(f"Config{number}", __base__=Config) for number in range(count)]


def case(n: int, *, types: int = 1) -> Case:
    """N providers, spread over `types` provider types of one plugin."""
    classes = config_classes(types)
    kinds = [ProviderType(API, f"remote::type-{each}", cls) for each, cls in enumerate(classes)]
    registry = Registry(plugins=[Plugin(kinds)], entry_points=False)
    values = [stack_values(number) for number in range(n)]
    entries = [
        ProviderEntry(
            API,
            f"provider-{number}",
            f"remote::type-{number % types}",
            values[number],
            path=("providers", API, number),
        )
        for number in range(n)
    ]
    document = Document("stack.yaml", {}, "0" * 64)
    stack = StackFile("stack.yaml", document, "new", tuple(entries), apis=(API,))
    overlays = {
        f"{API}/provider-{number}": (Overlay("site", 1, overlay_values(number)),) for number in range(n)
    }
    return Case(registry, stack, values, overlays, [classes[number % types] for number in range(n)])


def floor(
    values: Sequence[dict[str, Any]], classes: Sequence[type[BaseModel]], *, class_layer: bool = True
) -> Callable[[], list[BaseModel]]:
    """The least that can be done: four layers merged by hand for this very class, one validation.

    Without `class_layer` the lowest layer is left to pydantic, which fills in what is not given.
    """
    overlays = [overlay_values(number) for number in range(len(values))]
    bottom = CLASS_LAYER if class_layer else {"retry": {}, "kvstore": {}}

    def run() -> list[BaseModel]:
        found = []
        for given, overlay, cls in zip(values, overlays, classes, strict=True):
            merged = {**bottom, **DEFAULTS, **given}
            retry = {**bottom["retry"], **DEFAULTS["retry"], **given["retry"]}
            merged["kvstore"] = {**bottom["kvstore"], **given["kvstore"]}
            for name in USER_FIELDS:
                if name in overlay:
                    merged[name] = overlay[name]
            if "attempts" in overlay.get("retry", ()):
                retry["attempts"] = overlay["retry"]["attempts"]
            merged["retry"] = retry
            found.append(cls.__pydantic_validator__.validate_python(merged))
        return found

    return run


def stack_text(n: int) -> str:
    """The same N providers as the text of a stack file."""
    providers = [
        {
            "provider_id": f"provider-{number}",
            "provider_type": "remote::type-0",
            "config": stack_values(number),
        }
        for number in range(n)
    ]
    data = {"version": 2, "image_name": "bench", "apis": [API], "providers": {API: providers}}
    return yaml.safe_dump(data, sort_keys=False)
