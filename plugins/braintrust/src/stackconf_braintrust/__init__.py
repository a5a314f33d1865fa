"""stackconf's provider for scoring with Braintrust's `autoevals`.

`current()` is the scoring that this process has been configured with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stackconf_braintrust.scoring import Scoring

__all__ = ["current"]


def current(provider: str = "scoring/braintrust") -> Scoring | None:
    """The scoring of a provider of this process (`api/provider_id`), or `None` while it has none."""
    from stackconf_braintrust import running

    return running.current(provider)
