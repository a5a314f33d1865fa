"""Layers become one effective configuration, with every origin known."""
