"""Where each provider of a stack stands.

Of a step's target the secrets are left out; their keyed digests stay in the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.packing import packed
from stackconf.shapes.providers import provider_data, provider_from
from stackconf.shapes.reading import Given, Misshapen, choice, mapping, text, whole

if TYPE_CHECKING:
    from stackconf.status import ProviderStatus, StackStatus, Tried
    from stackconf.store.base import Holder, JournalStep, OpenAttempt


def status_data(found: StackStatus) -> dict[str, Any]:
    """Where each provider stands."""
    return {
        "revision": found.revision,
        "running": None if found.running is None else holder_data(found.running),
        "cut_off": None if found.cut_off is None else open_attempt_data(found.cut_off),
        "lost": found.lost or None,
        "providers": [
            {
                "provider": each.provider,
                "state": each.standing,
                "desired": each.desired,
                "tried": None if each.tried is None else _tried_data(each.tried),
                "applied": each.applied,
            }
            for each in found.providers
        ],
    }


def status_from(data: object) -> StackStatus:
    """What `status_data` wrote."""
    from stackconf.status import StackStatus

    given = Given(data)
    return StackStatus(
        given.whole("revision"),
        given.each("providers", _provider_from),
        given.maybe("running", holder_from),
        given.maybe("cut_off", open_attempt_from),
        given.some_text("lost"),
    )


def _provider_from(data: object) -> ProviderStatus:
    from stackconf.status import ProviderStatus, Standing

    given = Given(data)
    return ProviderStatus(
        given.text("provider"),
        given.one("state", choice(Standing)),
        given.maybe("desired", whole),
        given.maybe("tried", _tried_from),
        given.maybe("applied", whole),
    )


def _tried_data(tried: Tried) -> dict[str, Any]:
    return {
        "attempt": tried.attempt,
        "revision": tried.revision,
        "state": tried.state,
        "error": tried.error,
        "at": tried.at,
    }


def _tried_from(data: object) -> Tried:
    from stackconf.status import Tried

    given = Given(data)
    return Tried(
        given.whole("attempt"),
        given.whole("revision"),
        given.text("state"),
        given.text("error"),
        given.text("at"),
    )


def holder_data(running: Holder) -> dict[str, Any]:
    """Who is applying now."""
    return {"pid": running.pid, "actor": running.actor, "since": running.since}


def holder_from(data: object) -> Holder:
    """What `holder_data` wrote."""
    from stackconf.store.base import Holder

    given = Given(data)
    return Holder(given.whole("pid"), given.text("actor"), given.text("since"))


def open_attempt_data(attempt: OpenAttempt) -> dict[str, Any]:
    """An attempt that has not ended. `touched` are the providers of the first of its `steps`."""
    return {
        "attempt": attempt.number,
        "revision": attempt.revision,
        "begun_at": attempt.begun_at,
        "actor": attempt.actor,
        "undoing": attempt.undoing,
        "touched": [step.provider.key for step in attempt.touched],
        "steps": [_step_data(step) for step in attempt.steps],
    }


def open_attempt_from(data: object) -> OpenAttempt:
    """What `open_attempt_data` wrote."""
    from stackconf.store.base import OpenAttempt

    given = Given(data)
    steps, touched = given.each("steps", _step_from), given.each("touched", text)
    if tuple(step.provider.key for step in steps[: len(touched)]) != touched:
        raise Misshapen("are not those of the first steps", "touched")
    return OpenAttempt(
        given.whole("attempt"),
        given.whole("revision"),
        given.text("begun_at"),
        given.text("actor"),
        given.flag("undoing"),
        steps,
        steps[: len(touched)],
    )


def _step_data(step: JournalStep) -> dict[str, Any]:
    from stackconf.plan import shown

    return {**provider_data(step.provider), "kind": step.kind, "target": packed(shown(step.target))}


def _step_from(data: object) -> JournalStep:
    from stackconf.store.base import JournalStep

    given = Given(data)
    return JournalStep(provider_from(data), given.text("kind"), given.one("target", mapping))
