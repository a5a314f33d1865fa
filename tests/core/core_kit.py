"""Small real plugins, stacks and stores for the tests of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stackconf import Applied, ProviderType, Stack, hookimpl
from stackconf.registry.metadata import DisabledPlugins
from stackconf.registry.registry import Registry
from stackconf.testing import machine

if TYPE_CHECKING:
    from pydantic import BaseModel

MACHINE = machine()


class Owner:
    """A provider plugin that owns any number of types and remembers what it was asked.

    `defaults`, `findings` and `applying` stand for what an author would write into the hooks.
    """

    def __init__(
        self,
        config_class: type[BaseModel] | Mapping[str, type[BaseModel]],
        *,
        defaults: Callable[..., Any] | Mapping[str, object] | None = None,
        findings: Callable[..., Any] | None = None,
        applying: Callable[..., Any] | None = None,
        depends: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        classes = (
            config_class if isinstance(config_class, Mapping) else {"inference/remote::acme": config_class}
        )
        self.provides = tuple(
            ProviderType(
                *key.split("/", 1), config, api_dependencies=tuple((depends or {}).get(key.split("/")[0], ()))
            )
            for key, config in classes.items()
        )
        self.calls: list[tuple[str, str]] = []
        self._defaults, self._findings, self._applying = defaults, findings, applying

    def asked(self, hook: str) -> list[str]:
        """The providers that a hook was called for, in order."""
        return [provider for name, provider in self.calls if name == hook]

    @hookimpl
    def default_config(self, provider, hardware):
        self.calls.append(("default_config", provider.key))
        return self._defaults(provider, hardware) if callable(self._defaults) else self._defaults

    @hookimpl
    def validate_user_config(self, provider, user_config, config, hardware):
        self.calls.append(("validate_user_config", provider.key))
        return self._findings(provider, user_config, config, hardware) if self._findings else []

    @hookimpl
    def apply_config(self, provider, config, previous):
        self.calls.append(("apply_config", provider.key))
        return self._applying(provider, config, previous) if self._applying else Applied("done")


def registry_of(*plugins: object, **options: Any) -> Registry:
    """A registry with these plugins and nothing that happens to be installed."""
    options.setdefault("entry_points", False)
    options.setdefault("disabled", DisabledPlugins(Path("/nonexistent/disabled")))
    return Registry(plugins=plugins, **options)


def open_stack(
    folder: Path,
    data: Mapping[str, Any] | str,
    *plugins: object,
    environ: Mapping[str, str] | None = None,
    **options: Any,
) -> Stack:
    """A stack on a file in `folder`, with its own store there."""
    file = folder / "stack.yaml"
    text = data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False)
    file.write_text(text, encoding="utf-8")
    registry = options.pop("registry", None) or registry_of(*plugins)
    options.setdefault("hardware", MACHINE)
    return Stack.open(file, registry=registry, environ=environ or {}, **options)


def one(config: Mapping[str, Any] | None = None, **entry: Any) -> dict[str, Any]:
    """A stack file with one provider, `inference/acme`."""
    return {"providers": {"inference": [one_entry(config, **entry)]}}


def one_entry(config: Mapping[str, Any] | None = None, **entry: Any) -> dict[str, Any]:
    """The provider `acme` of type `remote::acme`."""
    return {"provider_id": "acme", "provider_type": "remote::acme", "config": dict(config or {}), **entry}


def overlay(config: Mapping[str, Any], provider: str = "inference/acme") -> dict[str, Any]:
    """A configuration for one provider, in the form that `register` takes."""
    api, provider_id = provider.split("/")
    return {api: [{"provider_id": provider_id, "config": dict(config)}]}


def lines(issues: Iterable[object]) -> list[str]:
    """The issues as people read them; each is one line."""
    texts = [str(issue) for issue in issues]
    assert not any("\n" in text for text in texts)
    return texts


def effective(stack: Stack, provider: str = "inference/acme") -> BaseModel:
    """The effective configuration of a provider that must have one."""
    resolved = stack.resolution.providers[provider]
    assert resolved.config is not None, lines(resolved.issues)
    return resolved.config


def distribution(
    site: Path,
    name: str,
    entry_points: Mapping[str, Mapping[str, str]],
    modules: Mapping[str, str] | None = None,
    *,
    version: str = "1.0",
) -> None:
    """Lay out a distribution in `site` as an installer does: metadata, entry points, modules."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    text = ""
    for group, entries in entry_points.items():
        text += f"[{group}]\n" + "".join(f"{key} = {target}\n" for key, target in entries.items())
    (info / "entry_points.txt").write_text(text)
    for module, source in (modules or {}).items():
        (site / f"{module}.py").write_text(source)


def plugin_source(*types: str, body: str = "", top: str = "") -> str:
    """The text of a plugin module that provides these types, with one integer field `port`."""
    declared = "".join(
        f"ProviderType({api!r}, {kind!r}, Config), " for api, kind in (key.split("/", 1) for key in types)
    )
    return f"""
from pydantic import BaseModel
from stackconf import Applied, Issue, ProviderType, because, hookimpl, user_field
{top}
class Config(BaseModel):
    port: int = user_field(1)

provides = ({declared})
{body}
"""
