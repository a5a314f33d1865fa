"""Acme's distribution is installed and used by the test, never collected or imported from here."""

collect_ignore = ["acme"]
