"""What this process scores with: joining, changing, leaving, and taking each of them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import Applied
from stackconf_braintrust.scoring import Scoring, address, ask, build

if TYPE_CHECKING:
    from stackconf_braintrust.config import BraintrustConfig

_in_use: dict[str, Scoring] = {}
_retired: dict[str, Scoring] = {}
"""What the last change of each provider replaced. It stays open until the next one, so that rows
being scored are finished and an undo has it back as it was."""


def current(provider: str) -> Scoring | None:
    """The scoring in use by a provider (`api/provider_id`), or `None`."""
    return _in_use.get(provider)


def join(provider: str, config: BraintrustConfig) -> Applied:
    """Score with `config` from now on.

    Raises `ScoringUnusable` when the library does not work or the key is refused; pending when the
    judge's service cannot be reached, and nothing is changed then.
    """
    fresh = build(config)
    try:
        unreachable = None if fresh.client is None else ask(fresh.client)
    except BaseException:
        fresh.close_later()
        raise
    if unreachable is not None:
        fresh.close_later()
        return Applied(pending=unreachable)
    before = _exchange(provider, fresh)

    def undo() -> None:
        _restore(provider, before)
        fresh.close_later()

    def check() -> str | None:
        if _in_use.get(provider) is not fresh:
            return f"{provider} of this process has been configured anew since"
        return fresh.check()

    return Applied(_told(fresh), undo=undo, check=check)


def leave(provider: str) -> Applied:
    """Score no more."""
    before = _exchange(provider, None)
    if before is None:
        return Applied("this process was not scoring")
    return Applied("this process no longer scores", undo=lambda: _restore(provider, before))


def _exchange(provider: str, fresh: Scoring | None) -> Scoring | None:
    before = _in_use.pop(provider, None)
    if fresh is not None:
        _in_use[provider] = fresh
    expired = _retired.pop(provider, None)
    if before is not None:
        _retired[provider] = before
    if expired is not None:
        expired.close_later()
    return before


def _restore(provider: str, before: Scoring | None) -> None:
    _retired.pop(provider, None)
    if before is None:
        _in_use.pop(provider, None)
    else:
        _in_use[provider] = before


def _told(fresh: Scoring) -> str:
    library = f"autoevals {fresh.version}, {fresh.config.max_concurrency} rows at once"
    if fresh.client is None:
        return f"{library}; heuristic scorers work, those with a judge need openai_api_key"
    return f"{library}; judged by {address(fresh.client)}"
