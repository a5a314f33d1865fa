"""What the tests share: an installed runtime, stacks in it, and what is said about them."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackconf import InvalidConfig, Issue, ProviderType, Registry, Stack
from stackconf.stackfile.model import loads
from stackconf.testing import machine
from stackconf_ogx.hosted import HostedTypes
from stackconf_ogx.internals import SUPPORTED
from stackconf_ogx.policy import Policy, shipped
from stackconf_ogx.runtimes import UpstreamRuntime, opened

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf_ogx.internals.base import Internals

RUNTIMES = ("llama-stack", "ogx")
MACHINE = machine()


REQUIRED = os.environ.get("STACKCONF_OGX_REQUIRED", "")
"""The runtime that has to be there: then its tests fail instead of being skipped."""


def installed(name: str) -> str:
    """Why a runtime is not here, or nothing."""
    supported = SUPPORTED[name]
    try:
        found = version(supported.package)
    except PackageNotFoundError:
        return f"{supported.requirement} is not installed"
    return "" if supported.has(found) else f"{supported.package} {found} is installed"


class Upstream:
    """One installed runtime."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.internals: Internals = opened(name)
        self.policies: Mapping[str, Policy] = shipped(SUPPORTED[name].module)
        file = loads("providers: {}", "empty.yaml", {})
        self.empty = HostedTypes(self.internals, self.policies, file, UpstreamRuntime(name, None))
        self.kinds: dict[str, ProviderType] = {kind.key: kind for kind in self.empty.provides}

    def config_class(self, key: str) -> type[BaseModel]:
        found = self.empty._class_of(key)
        assert found is not None, key
        return found

    def stack(self, folder: Path, text: str, **environ: str) -> Stack:
        file = folder / "stack.yaml"
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return Stack.open(file, registry=Registry(), hardware=MACHINE, environ=environ, runtime=self.name)

    def issues(self, folder: Path, text: str, **environ: str) -> list[Issue]:
        try:
            with self.stack(folder, text, **environ) as stack:
                return list(stack.issues)
        except InvalidConfig as error:
            return list(error.issues)

    def lines(self, folder: Path, text: str, **environ: str) -> list[str]:
        """What is said, without the folder and without what is not installed here."""
        said = [issue for issue in self.issues(folder, text, **environ) if issue.code != "missing-package"]
        return [str(issue).removeprefix(f"{folder}/") for issue in said]


def one(upstream: Upstream, api: str, provider_type: str, config: str, top: str = "") -> str:
    """A stack with one provider, as the runtime's files look."""
    head = (
        "version: '2'\nimage_name: x\n" if upstream.name == "llama-stack" else "version: 2\ndistro_name: x\n"
    )
    return (
        f"{head}providers:\n  {api}:\n  - provider_id: one\n    provider_type: {provider_type}\n"
        f"    config: {config}\n{top}"
    )


def registered(stack: Stack, api: str, config: Mapping[str, Any]) -> Any:
    return stack.configurations.register({api: [{"provider_id": "one", "config": dict(config)}]})
