"""Applying a configuration: asking a server, or writing its file and restarting it.

The scales of LoRA adapters are the one thing that llama.cpp's server changes while it runs: `POST
/props` takes no settings yet, and `/slots` keeps and restores what a slot has read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import evolve

from stackconf import Applied
from stackconf_llama_cpp.environment import file_text
from stackconf_llama_cpp.memory import Slots
from stackconf_llama_cpp.server import Rejected, Server, Unreachable

if TYPE_CHECKING:
    from stackconf.types import Check
    from stackconf_llama_cpp.config import LlamaCppServerConfig
    from stackconf_llama_cpp.server import Running
    from stackconf_models import Engine

_CLOSE = 1e-5
"""The server keeps scales in 32 bits."""


def change(config: LlamaCppServerConfig) -> Applied:
    """Make the server run with `config`, or see whether it does.

    Raises `Rejected` where the server is no llama.cpp, refuses the token or serves another model, and
    `EngineFailed` where the file or the restart command cannot be used.
    """
    if config.config_file is not None:
        return _managed(config)
    try:
        detail = _look(config)
        scaled = _scaled(config)
    except Unreachable as error:
        return Applied(pending=str(error))
    if scaled is None:
        # Nothing was changed, so there is nothing that an undo could leave wrong.
        return Applied(detail, undo=_nothing, check=lambda: wrong(config), check_undo=lambda: None)
    return evolve(
        scaled, detail=f"{detail}; {scaled.detail}", check=lambda: wrong(config) or _wrong_scales(config)
    )


def leave(previous: LlamaCppServerConfig | None) -> Applied | None:
    """A server belongs to the operator: it goes on as it is."""
    if previous is None:
        return None
    told = f"; {previous.config_file} stays" if previous.config_file else ""
    return Applied(f"llama.cpp is left running as it is{told}", undo=_nothing)


def wrong(config: LlamaCppServerConfig) -> str | None:
    """What is wrong with the server now, in one line, or `None`."""
    try:
        _look(config)
    except (Unreachable, Rejected) as error:
        return str(error)
    return None


def engine_of(config: LlamaCppServerConfig) -> Engine:
    """How stackconf-models puts the file in place. Raises `Rejected` for a header that cannot be sent."""
    from stackconf_models import Engine

    assert config.config_file is not None  # noqa: S101 (the caller asked)
    headers = Server.of(config).headers.values()
    return Engine(
        config.config_file,
        config.restart_command or (),
        _health_url(config),
        restart_seconds=config.restart_timeout,
        health_seconds=config.health_timeout,
        confirm=(lambda: _disagrees(config)) if config.restart_command else None,
        secrets=[
            each for each in (config.token, *(each.removeprefix("Bearer ") for each in headers)) if each
        ],
    )


def _managed(config: LlamaCppServerConfig) -> Applied:
    from stackconf_models import put_in_place

    before = _scales(config) if config.lora_scales else {}
    placed = put_in_place(engine_of(config), file_text(config))
    if not config.lora_scales or (placed.check is not None and placed.check() is not None):
        return placed
    try:
        scaled = _scaled(config)
    except (Unreachable, Rejected) as error:
        # The file is in place by now, so the caller is told by the check, and takes it back.
        told = str(error)
        return evolve(placed, check=lambda: told)
    return _both(placed, scaled, config, before)


def _both(
    placed: Applied, scaled: Applied | None, config: LlamaCppServerConfig, before: Mapping[int, float]
) -> Applied:
    """The file and the scales: those come after a restart, which forgets them, also after an undo."""
    undo_file, check, check_file = placed.undo, placed.check, placed.check_undo
    server = Server.of(config)
    detail = placed.detail if scaled is None else f"{placed.detail}; {scaled.detail}"

    def undo() -> None:
        if undo_file is not None:
            undo_file()
        if before and before.keys() == _scales(config).keys():
            server.set_scales(before)

    def both() -> str | None:
        told = check() if check is not None else None
        return told if isinstance(told, str) else _wrong_scales(config)

    return evolve(placed, detail=detail, undo=undo, check=both, check_undo=check_file)


def _scales(config: LlamaCppServerConfig) -> dict[int, float]:
    """How much each adapter counts now; nothing where the server cannot be asked."""
    try:
        return {each.id: each.scale for each in Server.of(config).adapters()}
    except (Unreachable, Rejected):
        return {}


def _scaled(config: LlamaCppServerConfig) -> Applied | None:
    """Set the adapters' scales, as far as they are not so already. Raises `Unreachable` and `Rejected`."""
    if not config.lora_scales:
        return None
    server = Server.of(config)
    found = server.adapters()
    missing = config.lora_scales.keys() - {each.name for each in found}
    if missing:
        told = ", ".join(sorted(each.name for each in found)) or "none"
        raise Rejected(
            f"llama.cpp at {config.address} has no adapter {min(missing)}; it has {told}, from its --lora"
        )
    before = {each.id: each.scale for each in found}
    after = {each.id: config.lora_scales.get(each.name, each.scale) for each in found}
    if _same(before, after):
        return None
    server.set_scales(after)
    changed = [each for each in found if abs(before[each.id] - after[each.id]) > _CLOSE]
    told = ", ".join(f"{each.name} {each.scale:g} -> {after[each.id]:g}" for each in changed)
    return Applied(
        f"adapters: {told}",
        undo=lambda: server.set_scales(before),
        check=lambda: _wrong_scales(config),
        check_undo=_scales_are(server, before),
    )


def _wrong_scales(config: LlamaCppServerConfig) -> str | None:
    try:
        found = Server.of(config).adapters()
    except (Unreachable, Rejected) as error:
        return str(error)
    scales = {each.name: each.scale for each in found}
    for name, wanted in (config.lora_scales or {}).items():
        if name not in scales or abs(scales[name] - wanted) > _CLOSE:
            return f"the adapter {name} counts {scales.get(name, 'nothing')}, not {wanted:g}"
    return None


def _scales_are(server: Server, wanted: Mapping[int, float]) -> Check:
    def check() -> str | None:
        try:
            found = {each.id: each.scale for each in server.adapters()}
        except (Unreachable, Rejected) as error:
            return str(error)
        return None if _same(found, wanted) else "the adapters do not count as they did before"

    return check


def _same(one: Mapping[int, float], other: Mapping[int, float]) -> bool:
    return one.keys() == other.keys() and all(abs(one[each] - other[each]) <= _CLOSE for each in one)


def _health_url(config: LlamaCppServerConfig) -> str | None:
    """Only after a restart is there something to wait for. TLS of its own kind is asked by `confirm`."""
    if not config.restart_command:
        return None
    given = config.health_url
    if given is None and urlsplit(config.address).scheme.lower() == "http":
        given = f"{config.address}/health"
    return given


def _look(config: LlamaCppServerConfig) -> str:
    """What the server serves, in one line. Raises `Unreachable` and `Rejected`."""
    running = Server.of(config).running()
    if config.model is not None and config.model not in running.names:
        served = ", ".join(running.names) or "no model"
        raise Rejected(
            f"llama.cpp at {config.address} serves {served}, not {config.model}; set model, or --alias"
        )
    return f"llama.cpp at {config.address} {running}"


def _disagrees(config: LlamaCppServerConfig) -> str | None:
    """What is wrong with the server by the file as it is now: the new one, or after an undo the old one.

    So an old process that still answers is told from the one that was restarted.
    """
    try:
        running = Server.of(config).running()
    except (Unreachable, Rejected) as error:
        return str(error)
    longest = config.told.shape.max_context if config.told.shape else None
    wrong = next(iter(_differences(_said_by(config), running, longest)), None)
    if wrong is None:
        return None
    asked = f"was it restarted, and with the variables of {config.config_file}?"
    return f"llama.cpp at {config.address} {wrong}; {asked}"


def _differences(said: Mapping[str, str], running: Running, longest: int | None) -> list[str]:
    wrong = []
    alias, path = said.get("LLAMA_ARG_ALIAS"), said.get("LLAMA_ARG_MODEL")
    if alias is not None and alias not in running.names:
        wrong.append(f"serves {', '.join(running.names) or 'no model'}, not {alias}")
    if path is not None and running.model_path not in {None, path}:
        wrong.append(f"has loaded {running.model_path}, not {path}")
    slots, context = _number(said, "LLAMA_ARG_N_PARALLEL"), _number(said, "LLAMA_ARG_CTX_SIZE")
    if slots is not None and running.slots not in {None, slots}:
        wrong.append(f"has {running.slots} slots, not {slots}")
    if context is not None and running.context is not None:
        # Builds round up to 256 or not, and none goes beyond the model's own context.
        each = Slots(context, slots or 1, said.get("LLAMA_ARG_KV_UNIFIED") == "true").each
        plain = context if said.get("LLAMA_ARG_KV_UNIFIED") == "true" else context // (slots or 1)
        good = {min(size, longest or size) for size in (each, plain)}
        if running.context not in good and not (longest is None and running.context < plain):
            wrong.append(f"has a context of {running.context} for each slot, not {min(good)}")
    return wrong


def _number(said: Mapping[str, str], name: str) -> int | None:
    text = said.get(name, "")
    return int(text) if text.isdecimal() else None


def _said_by(config: LlamaCppServerConfig) -> dict[str, str]:
    """The variables in the file, as far as it can be read."""
    try:
        lines = Path(config.config_file or "").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def _nothing() -> None:
    """Nothing was changed."""
