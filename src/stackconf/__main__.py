"""`python -m stackconf` is the `stackconf` command."""

from stackconf.cli.main import run

run()
