"""Who is acting, as revisions and attempts remember it."""

from __future__ import annotations

import getpass
import os


def current_actor() -> str:
    """Who is acting: `STACKCONF_ACTOR`, or the user's name."""
    named = os.environ.get("STACKCONF_ACTOR")
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
