"""What this process scores with: joining, changing, leaving, and taking each of them back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import Applied, Holder
from stackconf_braintrust.scoring import Scoring, address, ask, build

if TYPE_CHECKING:
    from stackconf_braintrust.config import BraintrustConfig

held: Holder[Scoring] = Holder(close=Scoring.close_later)


def current(provider: str) -> Scoring | None:
    """The scoring in use by a provider (`api/provider_id`), or `None`."""
    return held.current(provider)


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
    return held.swap(provider, fresh, check=fresh.check).applied(_told(fresh))


def leave(provider: str) -> Applied:
    """Score no more."""
    swap = held.swap(provider, None)
    return swap.applied(
        "this process was not scoring" if swap.before is None else "this process no longer scores"
    )


def _told(fresh: Scoring) -> str:
    library = f"autoevals {fresh.version}, {fresh.config.max_concurrency} rows at once"
    if fresh.client is None:
        return f"{library}; heuristic scorers work, those with a judge need openai_api_key"
    return f"{library}; judged by {address(fresh.client)}"
