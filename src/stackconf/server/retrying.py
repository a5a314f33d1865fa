"""What could not be reached is tried again for as long as the stack is hosted."""

from __future__ import annotations

import logging
from threading import Event
from typing import TYPE_CHECKING

from stackconf.errors import ApplyBusy, StackconfError
from stackconf.redact import described
from stackconf.retry import pauses
from stackconf.server.lines import told_of

if TYPE_CHECKING:
    from stackconf.server.hosted import Hosted

_LOOK = 1.0
"""Seconds between looks at whether anything is pending."""

_log = logging.getLogger(__name__)


def keep_retrying(hosted: Hosted, stop: Event) -> None:
    """Try what is pending, with longer and longer pauses, until `stop` is set.

    A new revision begins with short pauses again: it may well be the remedy.
    """
    waits, revision, left, said = pauses(), -1, 0.0, ""
    while not stop.wait(_LOOK):
        try:
            pending, head = hosted.pending(), hosted.revision
            if not pending:
                revision = -1
                continue
            if head != revision:
                waits, revision = pauses(), head
                left = next(waits)
            left -= _LOOK
            if left > 0:
                continue
            left = next(waits)
            report = hosted.retry(actor="serve").report()
        except ApplyBusy:
            continue
        except Exception as error:  # noqa: BLE001 (whatever it is, the next try comes)
            problem = str(error) if isinstance(error, StackconfError) else described(error)
            if problem != said:  # a store that cannot be read is asked every second
                _log.warning("trying again: %s", problem)
            said = problem
        else:
            said = ""
            if report.state != "pending":
                _log.info("trying again: %s", told_of(report))
