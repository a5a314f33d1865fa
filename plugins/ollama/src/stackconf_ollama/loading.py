"""Applying a configuration: one model in memory, with its options, and the way back.

The options of a model are load options: Ollama keeps them while the model stays loaded, and
reloads it when a request names others (`server/sched.go`, `needsReload`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from stackconf import Applied
from stackconf_ollama.config import keep_alive_seconds
from stackconf_ollama.server import Rejected, Running, Server, Unreachable, full_name

if TYPE_CHECKING:
    from stackconf_ollama.config import OllamaConfig


@frozen
class Touched:
    """One model on one server, as it was before it was touched: what `undo` goes back to."""

    server: Server
    model: str
    before: Running | None
    """`None`: it was not loaded."""
    options: Mapping[str, int]
    keep_alive: int | str | None
    timeout: float
    forget_keep_alive: bool = False
    """The change gave the model a `keep_alive` that it had not before."""

    def restore(self) -> None:
        """Load the model as it was, or unload it again."""
        if self.before is not None:
            if self.forget_keep_alive:
                self.server.unload(self.model)
            self.server.load(self.model, self.options, self.keep_alive, self.timeout)
        elif full_name(self.model) in self.server.running():
            self.server.unload(self.model)

    def wrong(self, seconds: float) -> str | None:
        """What is not as it was, `seconds` after `restore`, or `None`. Raises as the server does."""
        running = self.server.running().get(full_name(self.model))
        if self.before is None:
            return None if running is None else f"{self.model} is still loaded: a request uses it"
        if running is None:
            expired = self.keep_alive is not None and keep_alive_seconds(self.keep_alive) <= seconds
            return None if expired else f"{self.model} was loaded before and is not loaded again"
        asked = self.options.get("num_ctx", running.context_length)
        known = {self.before.context_length, asked}
        if None in {running.context_length, self.before.context_length} or running.context_length in known:
            return None
        return f"{self.model} runs with context {running.context_length} instead of {asked}"


@define(eq=False)
class _WayBack:
    """What an apply touched: taking it back, and whether the server then has what it had before."""

    touched: Sequence[Touched]
    server: Server | None = None
    """Asked where no model was touched."""
    _since: float = field(factory=time.monotonic, init=False)

    def undo(self) -> None:
        # In the order of the change: the new model leaves memory before the old one comes back.
        for model in self.touched:
            model.restore()
        self._since = time.monotonic()

    def check(self) -> str | None:
        seconds = time.monotonic() - self._since
        try:
            if self.server is not None and not self.touched:
                self.server.version()
            return next(filter(None, (model.wrong(seconds) for model in self.touched)), None)
        except (Unreachable, Rejected) as error:
            return str(error)


def change(config: OllamaConfig, previous: OllamaConfig | None) -> Applied:
    """Make the server hold `config.model` with its options, and no longer `previous.model`.

    Raises `Rejected` when the server refuses; what was loaded before is then loaded again.
    """
    server = Server.of(config)
    touched: list[Touched] = []
    try:
        version = server.version()
        if config.model is None:
            detail = f"Ollama {version} answers at {config.address}; no model is set, so none was loaded"
            check = _answers(server)
        else:
            detail, check = _load(server, version, config, previous, touched)
        detail += _release(config, previous, touched)
    except Unreachable as error:
        return Applied(pending=str(error))
    except Rejected:
        _restore_quietly(touched)
        raise
    same_server = previous is None or previous.address == config.address
    back = _WayBack(touched, server if same_server else None)
    return Applied(detail, undo=back.undo, check=check, check_undo=back.check)


def leave(previous: OllamaConfig) -> Applied:
    """Unload the model. A server that is gone holds none, so that is no failure."""
    touched: list[Touched] = []
    try:
        detail = _release(None, previous, touched)
    except Unreachable as error:
        detail = f"left as it is: {error}"
    back = _WayBack(touched)
    words = detail.removeprefix("; ") or "no model of this stack was loaded"
    return Applied(words, undo=back.undo, check_undo=back.check)


def _load(
    server: Server,
    version: str,
    config: OllamaConfig,
    previous: OllamaConfig | None,
    touched: list[Touched],
) -> tuple[str, Callable[[], str | None]]:
    model = config.model or ""
    name = full_name(model)
    models = server.models()
    if name not in models:
        raise Rejected(f"the model {model} is not on {config.address}; get it with: ollama pull {model}")
    if models[name]:
        return f"Ollama {version} has {model}, which runs at {models[name]}", _answers(server)
    if config.keep_alive is not None and keep_alive_seconds(config.keep_alive) == 0:
        detail = f"Ollama {version} has {model}; keep_alive is 0, so it is loaded for each request only"
        return detail, _answers(server)
    touched.append(_touched(server, config, previous))
    if previous is not None and _same_model(config, previous) and _forgets(previous, config):
        server.unload(model)
    loaded_at = server.load(model, config.options, config.keep_alive, config.load_timeout)
    running = server.running().get(name)
    if running is None:
        raise Rejected(f"Ollama at {config.address} took {model}, but does not list it as loaded")
    stays = None
    if loaded_at is not None and running.expires_at is not None:
        stays = (running.expires_at - loaded_at).total_seconds()
    detail = f"Ollama {version} loaded {model}{_described(config, running)}"
    return detail, _stays_loaded(server, running, stays)


def _touched(server: Server, config: OllamaConfig, previous: OllamaConfig | None) -> Touched:
    model = config.model or ""
    before = server.running().get(full_name(model))
    if previous is not None and _same_model(config, previous):
        return _as_configured(server, previous, before, forget=_forgets(config, previous))
    # Somebody else loaded it. Of their options the server tells the context length only.
    known = {"num_ctx": before.context_length} if before and before.context_length else {}
    forget = config.keep_alive is not None
    return Touched(server, model, before, known, None, config.load_timeout, forget)


def _as_configured(
    server: Server, config: OllamaConfig, before: Running | None, *, forget: bool = False
) -> Touched:
    model = config.model or ""
    return Touched(server, model, before, config.options, config.keep_alive, config.load_timeout, forget)


def _forgets(given: OllamaConfig, unset: OllamaConfig) -> bool:
    """Whether a loaded model must go first, so that it does not keep the `keep_alive` it was given.

    A request without `keep_alive` leaves that of a loaded model as it is.
    """
    return given.keep_alive is not None and unset.keep_alive is None


def _release(config: OllamaConfig | None, previous: OllamaConfig | None, touched: list[Touched]) -> str:
    """Unload the model that the stack used before and uses no more; says so."""
    if previous is None or previous.model is None or (config and _same_model(config, previous)):
        return ""
    server = Server.of(previous)
    try:
        running = server.running().get(full_name(previous.model))
        if running is None:
            return ""
        gone = server.unload(previous.model)
    except (Unreachable, Rejected) as error:
        if config is None:
            raise
        return f"; {previous.model} could not be unloaded: {error}"
    touched.append(_as_configured(server, previous, running))
    if not gone:
        return f"; {previous.model} unloads when its last request ends"
    return f"; unloaded {previous.model}"


def _same_model(one: OllamaConfig, other: OllamaConfig) -> bool:
    if one.model is None or other.model is None:
        return False
    return one.address == other.address and full_name(one.model) == full_name(other.model)


def _described(config: OllamaConfig, running: Running) -> str:
    parts = []
    if running.context_length is not None:
        decided = config.num_ctx not in (None, running.context_length)
        asked = f" (asked for {config.num_ctx}; the server decided)" if decided else ""
        parts.append(f"context {running.context_length}{asked}")
    elif config.num_ctx is not None:
        parts.append(f"context {config.num_ctx} asked for")
    parts += [f"{name} {value}" for name, value in config.options.items() if name != "num_ctx"]
    return f": {', '.join(parts)}" if parts else ""


def _restore_quietly(touched: list[Touched]) -> None:
    """After a refusal. The refusal is what the person must read, not a second failure."""
    for model in touched:
        try:
            model.restore()
        except (Unreachable, Rejected):
            continue


def _answers(server: Server) -> Callable[[], str | None]:
    def check() -> str | None:
        try:
            server.version()
        except (Unreachable, Rejected) as error:
            return str(error)
        return None

    return check


def _stays_loaded(server: Server, loaded: Running, stays: float | None) -> Callable[[], str | None]:
    """A check that the model is still loaded as it was; after `stays` seconds it may be gone.

    `stays` is measured on the server's clock, `since` on this machine's: their difference never
    mixes two clocks.
    """
    since = time.monotonic()

    def check() -> str | None:
        try:
            server.version()
            running = server.running().get(loaded.name)
        except (Unreachable, Rejected) as error:
            return str(error)
        if running is None:
            expired = stays is not None and time.monotonic() - since >= stays
            return None if expired else f"{loaded.name} is no longer loaded; something unloaded it"
        if None not in (running.context_length, loaded.context_length) and (
            running.context_length != loaded.context_length
        ):
            return (
                f"{loaded.name} now runs with context {running.context_length} instead of "
                f"{loaded.context_length}: a request with other options reloaded it"
            )
        return None

    return check
