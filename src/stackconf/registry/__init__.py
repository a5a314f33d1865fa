"""Plugins: found in metadata, imported on use, called by address, and blamed by name."""
