"""A site's policy for every provider of every type: no more than so many workers by default."""

from __future__ import annotations

import os

from stackconf import Issue, because, hookimpl


class Policy:
    """Cross-cutting: it declares no `provides`."""

    @hookimpl(wrapper=True)
    def default_config(self, provider, hardware):
        """Cap what the owner derived."""
        derived = yield
        limit = int(os.environ.get("ACME_MAX_WORKERS", "0"))
        workers = (derived or {}).get("workers")
        if limit and workers is not None and workers.value > limit:
            return {**derived, "workers": because(limit, f"this site allows {limit}; {workers.reason}")}
        return derived

    @hookimpl
    def validate_user_config(self, provider, user_config, config, hardware):
        """A word about services that other machines can reach."""
        if "0.0.0.0" in getattr(config, "url", ""):
            yield Issue("listens to everybody", path="url", level="warning", hint="listen on localhost")


policy = Policy()
