"""The provider plugin: defaults from the hardware, validation, and a file that the service reads."""

from __future__ import annotations

import json
from pathlib import Path

from stackconf import Applied, Issue, ProviderType, because, hookimpl

stackconf_api = 1

provides = (
    ProviderType("inference", "remote::acme", "acme_ai.config:AcmeConfig", description="Acme's service"),
)


@hookimpl
def default_config(provider, hardware):
    """One worker for each usable physical core."""
    cores = hardware.cpu.usable_physical_cores
    if cores is None:
        return None
    return {"workers": because(cores, f"one worker for each of {cores} usable physical cores")}


@hookimpl
def validate_user_config(provider, user_config, config, hardware):
    """More workers than cores is allowed, and slow."""
    cores = hardware.cpu.usable_physical_cores
    if cores is not None and config.workers > 4 * cores:
        yield Issue(
            f"{config.workers} workers do not fit {cores} cores", path="workers", hint=f"at most {4 * cores}"
        )


@hookimpl
def apply_config(provider, config, previous):
    """Write the service's file; take it away when the provider leaves."""
    path = Path((config or previous).settings_file)
    before = path.read_bytes() if path.exists() else None
    wanted = None if config is None else _settings(config)
    _put(path, wanted)

    def check() -> str | None:
        found = path.read_bytes() if path.exists() else None
        return None if found == wanted else f"{path} does not say what was written"

    return Applied(f"{'wrote' if wanted else 'removed'} {path}", undo=lambda: _put(path, before), check=check)


def _settings(config) -> bytes:
    settings = config.model_dump(exclude={"settings_file", "api_key"})
    return json.dumps(settings, sort_keys=True).encode()


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    draft.replace(path)
