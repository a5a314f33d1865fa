"""Configures `vector_io/inline::sqlite-vec`. `connect(path, settings)` opens a file with the settings."""

from __future__ import annotations

from stackconf_sqlite_vec.database import Database, Settings, connect, settings_of

__all__ = ["Database", "Settings", "connect", "settings_of"]
