"""A driver that hangs costs its deadline once, whatever command is run after that."""

from __future__ import annotations

import time

import pytest

HUNG = """
import time
from stackconf import hookimpl
@hookimpl
def discover_hardware():
    time.sleep(60)
"""


@pytest.mark.exhaustive
def test_a_hung_driver_is_waited_for_once_and_again_on_request(here, process):
    (here / "hung.py").write_text(HUNG, encoding="utf-8")
    command = ["--plugin", "hung.py", "hardware"]

    def seconds(*more, **environ):
        started = time.monotonic()
        ran = process(*command, *more, STACKCONF_PROBE_TIMEOUT="4", **environ)
        assert ran.code == 0, ran.err
        return time.monotonic() - started, ran.out + ran.err

    first, told = seconds()
    assert first >= 4
    assert "did not answer within 4 s" in told
    second, told = seconds()
    assert second < 4
    assert "asked again in" in told
    assert "stackconf hardware --no-cache" in " ".join(told.split())
    assert seconds("--no-cache")[0] >= 4
    assert seconds()[0] < 4
    assert seconds(STACKCONF_NO_CACHE="1")[0] >= 4
