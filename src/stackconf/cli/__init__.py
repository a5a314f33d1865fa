"""The `stackconf` command."""
