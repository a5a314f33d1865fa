"""Configures `vector_io/inline::faiss`. Code that searches asks `engine(provider_key)` for the settings."""

from __future__ import annotations

from stackconf_faiss.engine import Engine, IndexTooLarge, engine

__all__ = ["Engine", "IndexTooLarge", "engine"]
