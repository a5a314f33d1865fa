"""OGX 1.5 as a running server: what is reached for inside it, and why."""

from __future__ import annotations

from stackconf_ogx.internals.running import Running


class Ogx15Server(Running):
    """One OGX 1.5 in this process."""
