"""sentence-transformers as a provider of stackconf; see `engine`."""

from __future__ import annotations

from stackconf_sentence_transformers.running import Engine, engine

__all__ = ["Engine", "engine"]
