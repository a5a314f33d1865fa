"""Applying a configuration: asking a server, or writing its file and restarting it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stackconf import Applied
from stackconf_vllm.config import RemoteVllmConfig
from stackconf_vllm.server import Rejected, Server, Unreachable

if TYPE_CHECKING:
    from stackconf_models import Engine
    from stackconf_vllm.config import InlineVllmConfig

HEADER = "# Written by stackconf; what is changed here is lost with the next apply.\n"


def change(config: RemoteVllmConfig | InlineVllmConfig) -> Applied | None:
    """Make vLLM run with `config`, or see whether it does.

    Raises `Rejected` where the server is no vLLM, refuses the token or serves another model, and
    `EngineFailed` where the file or the restart command cannot be used.
    """
    if not isinstance(config, RemoteVllmConfig):
        return Applied("nothing runs here; the stack's own process takes it at its start", undo=_nothing)
    if config.config_file is not None:
        return _managed(config)
    if config.address is None:
        return Applied("no url is set, so nothing was asked", undo=_nothing)
    try:
        detail = _look(config, config.address)
    except Unreachable as error:
        return Applied(pending=str(error))
    # Nothing was changed, so there is nothing that an undo could leave wrong.
    return Applied(detail, undo=_nothing, check=lambda: wrong(config), check_undo=lambda: None)


def leave(previous: RemoteVllmConfig | InlineVllmConfig | None) -> Applied | None:
    """A server belongs to the operator: it goes on as it is."""
    if previous is None:
        return None
    file = getattr(previous, "config_file", None)
    told = f"; {file} stays" if file else ""
    return Applied(f"vLLM is left running as it is{told}", undo=_nothing)


def wrong(config: RemoteVllmConfig) -> str | None:
    """What is wrong with the server now, in one line, or `None`."""
    if config.address is None:
        return None
    try:
        _look(config, config.address)
    except (Unreachable, Rejected) as error:
        return str(error)
    return None


def file_text(config: RemoteVllmConfig) -> str:
    """The text of the engine's own file: YAML with the long names of `vllm serve`'s arguments.

    Source: https://docs.vllm.ai/en/latest/configuration/serve_args.html

    >>> print(file_text(RemoteVllmConfig(config_file="/etc/v.yaml", model="acme/tiny", max_num_seqs=8)))
    # Written by stackconf; what is changed here is lost with the next apply.
    model: acme/tiny
    max-num-seqs: 8
    <BLANKLINE>
    """
    import yaml

    # A change of the cards must change this file too: then vLLM is restarted.
    cards = f"# For {environment_text(config).splitlines()[-1]}\n" if config.environment_file else ""
    return HEADER + cards + yaml.safe_dump(config.arguments, sort_keys=False, allow_unicode=True, width=1000)


def environment_text(config: RemoteVllmConfig) -> str:
    """The text of the service's environment: which cards it computes on.

    >>> print(environment_text(RemoteVllmConfig(config_file="/etc/v.yaml", visible_devices="2,3")))
    # Written by stackconf; what is changed here is lost with the next apply.
    CUDA_DEVICE_ORDER=PCI_BUS_ID
    CUDA_VISIBLE_DEVICES=2,3
    <BLANKLINE>
    """
    if config.visible_devices is None:
        return f"{HEADER}# all cards\n"
    return f"{HEADER}CUDA_DEVICE_ORDER=PCI_BUS_ID\nCUDA_VISIBLE_DEVICES={config.visible_devices}\n"


def engine_of(config: RemoteVllmConfig) -> Engine:
    """How stackconf-models puts the file in place. Raises `Rejected` for a header that cannot be sent."""
    from stackconf_models import Engine

    assert config.config_file is not None  # noqa: S101 (the caller asked)
    secrets = [config.token or "", *(each.removeprefix("Bearer ") for each in _server_headers(config))]
    return Engine(
        config.config_file,
        config.restart_command or (),
        _health_url(config),
        restart_seconds=config.restart_timeout,
        health_seconds=config.health_timeout,
        confirm=(lambda: _disagrees(config)) if config.restart_command else None,
        secrets=[each for each in secrets if each],
    )


def _managed(config: RemoteVllmConfig) -> Applied:
    from stackconf_models import Engine, EngineFailed, put_in_place

    engine = engine_of(config)
    if config.environment_file is None:
        return put_in_place(engine, file_text(config))
    environment = put_in_place(Engine(config.environment_file), environment_text(config))
    try:
        applied = put_in_place(engine, file_text(config))
    except EngineFailed:
        _undone(environment)
        raise
    return _together(environment, applied)


def _together(environment: Applied, engine: Applied) -> Applied:
    """Both as one. The environment goes back first, for the engine's undo is what restarts."""

    def undo() -> None:
        try:
            _undone(environment)
        finally:
            _undone(engine)

    return Applied(
        f"{engine.detail}; its cards: {environment.detail}",
        undo=undo,
        check=lambda: _said(environment.check) or _said(engine.check),
        check_undo=lambda: _said(environment.check_undo) or _said(engine.check_undo),
    )


def _undone(applied: Applied) -> None:
    if applied.undo is not None:
        applied.undo()


def _said(check: Callable[[], object] | None) -> str | None:
    said = check() if check is not None else None
    return said if isinstance(said, str) else None


def _health_url(config: RemoteVllmConfig) -> str | None:
    """Only after a restart is there something to wait for. TLS of its own kind is asked by `confirm`."""
    if not config.restart_command:
        return None
    given = config.health_url
    if given is None and config.address is not None and urlsplit(config.address).scheme.lower() == "http":
        given = f"{config.address}/health"
    return given


def _server_headers(config: RemoteVllmConfig) -> list[str]:
    return [] if config.address is None else list(Server.of(config, config.address).headers.values())


def _look(config: RemoteVllmConfig, address: str) -> str:
    """What the server serves, in one line. Raises `Unreachable` and `Rejected`."""
    served = Server.of(config, address).models()
    names = ", ".join(each.name for each in served) or "no model"
    if config.model is None:
        return f"vLLM at {address} serves {names}"
    found = next((each for each in served if each.name == config.model), None)
    if found is None:
        raise Rejected(
            f"vLLM at {address} serves {names}, not {config.model}; set model, or start it with that"
        )
    context = found.max_model_len
    return f"vLLM at {address} serves {config.model}" + (f", context {context}" if context else "")


def _disagrees(config: RemoteVllmConfig) -> str | None:
    """What is wrong with the server by the file as it is now: the new one, or after an undo the old one.

    So an old process that still answers is told from the one that was restarted.
    """
    if config.address is None:
        return None
    names, context = _said_by(config)
    try:
        served = Server.of(config, config.address).models()
    except (Unreachable, Rejected) as error:
        return str(error)
    found = next((each for each in served if each.name in names), None)
    if names and found is None:
        told = ", ".join(each.name for each in served) or "no model"
        return f"vLLM at {config.address} serves {told}, not {names[0]}; {_started(config)}"
    if found is None or context is None or found.max_model_len in {None, context}:
        return None
    told = f"a context of {found.max_model_len}, not {context}"
    return f"vLLM at {config.address} serves {found.name} with {told}; {_started(config)}"


def _started(config: RemoteVllmConfig) -> str:
    return f"was it restarted, and with --config {config.config_file}?"


def _said_by(config: RemoteVllmConfig) -> tuple[list[str], int | None]:
    """The names of the model and the context, as far as the file says."""
    from pathlib import Path

    import yaml

    try:
        text = Path(config.config_file or "").read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return [], None
    if not isinstance(content, dict):
        return [], None
    given = content.get("served-model-name", content.get("model"))
    names = [str(each) for each in (given if isinstance(given, list) else [given]) if each is not None]
    context = content.get("max-model-len")
    return names, context if isinstance(context, int) else None


def _nothing() -> None:
    """Nothing was changed."""
