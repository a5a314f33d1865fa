"""All or nothing: apply providers one after another, undo in reverse when one fails.

Nothing here knows the store: a `Journal` writes down what is about to be touched. A provider that
cannot be reached has rejected nothing: it is `pending` and the rest goes on, unless the caller
requires every provider to be healthy.

A provider is taken back by its plugin's own `undo`. Where there is none, or where nobody knew what
the provider ran with (an earlier apply was killed), its `apply_config` is called the other way
round, with what it had before. Either way it is asked afterwards whether it is healthy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from attrs import evolve, field, frozen

from stackconf.calling import Calls, Late
from stackconf.deadline import seconds_from
from stackconf.errors import HookError, StoreError
from stackconf.redact import described, retold, scrubbed
from stackconf.resolve.render import secrets_in
from stackconf.types import Applied

if TYPE_CHECKING:
    from pydantic import BaseModel

    from stackconf.plan import ProviderChange
    from stackconf.registry.hooks import OwnerHooks

State: TypeAlias = Literal["applied", "pending", "failed", "rolled_back", "unknown", "not_attempted"]
"""`unknown`: its undo failed, or its hook did not come back: nobody can say what it runs with."""

StepName: TypeAlias = Literal["apply", "check", "undo"]

APPLY_SECONDS = 300.0
"""How long one provider's apply, check or undo may take; `STACKCONF_APPLY_TIMEOUT` overrides."""


@frozen(eq=False)
class Before:
    """What a provider had before its turn, for the way back.

    `config` is `None` where it did not run. `certain` is false where nobody knows what runs now, so
    that `config` is only what is last known. `problem` says why `config` could not be rebuilt.
    """

    config: BaseModel | None = field(default=None, repr=False)
    certain: bool = True
    problem: str = ""


@frozen(eq=False)
class Step:
    """One provider's turn: its change, the hooks that make it, and the configurations.

    `previous` is what its hook is told to have run before.
    """

    change: ProviderChange
    hooks: OwnerHooks | None
    config: BaseModel | None = field(repr=False)
    previous: BaseModel | None = field(repr=False)
    before: Before = field(factory=Before)


class Journal(Protocol):
    """Where an apply writes down what it is about to do. Each returns when that is durable."""

    def touch(self, position: int) -> None:
        """The step at a position begins. Raises `StoreError`; then nothing is touched."""
        ...

    def undo(self) -> None:
        """The steps that began are about to be taken back. Raises `StoreError`."""
        ...


class _NoJournal:
    def touch(self, position: int) -> None:
        """Write nothing down."""

    def undo(self) -> None:
        """Write nothing down."""


@frozen
class Outcome:
    """How one provider fared. `detail` is what its plugin said, `error` what went wrong."""

    provider: str
    kind: str
    state: State
    detail: str = ""
    error: str = ""
    seconds: float = 0.0


@frozen
class Report:
    """How an apply went, provider by provider in the order of the plan.

    `took_over` is the number of the attempt that was cut off before this one, or 0. `warnings` is
    what went wrong beside the providers.
    """

    state: Literal["applied", "pending", "failed", "nothing"]
    outcomes: tuple[Outcome, ...] = ()
    revision: int = 0
    attempt: int = 0
    took_over: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def restores(self) -> bool:
        """Whether it gave back what was applied before, instead of applying its revision."""
        return bool(self.outcomes) and all(each.kind == "restore" for each in self.outcomes)

    def of(self, state: State) -> tuple[Outcome, ...]:
        """The outcomes in one state."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == state)


@frozen
class Progress:
    """A step that begins or ends: `seconds` is `None` at its beginning.

    The provider is number `position` of `total`, from 1.
    """

    provider: str
    step: StepName
    seconds: float | None = None
    position: int = 0
    total: int = 0


Observer: TypeAlias = Callable[[Progress], None]


class StopApply(Exception):
    """Raised by an observer: nothing more is to be applied, and what was is to be taken back."""


class _Unhealthy(Exception):
    """A check found something wrong, or a provider that must be healthy is out of reach."""


class _Lost(Exception):
    """A provider's `apply_config` did not come back: nobody can say what it did, or still does."""


def apply_seconds() -> float:
    """The deadline of one step of one provider, in seconds."""
    return seconds_from("STACKCONF_APPLY_TIMEOUT", APPLY_SECONDS)


class Transaction:
    """One apply over a sequence of steps.

    Call `run` once, `retire` once its report is written down, and `close` at the end. Interrupted by
    the user (`KeyboardInterrupt`), it undoes what it did and raises again. An observer that fails is
    ignored, but for `StopApply`: the step that runs is ended, and then all is taken back.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        require_healthy: bool = False,
        seconds: float | None = None,
        observer: Observer | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._steps = steps
        self._journal = journal or _NoJournal()
        self._require_healthy = require_healthy
        self._seconds = apply_seconds() if seconds is None else seconds
        self._observe = _Tolerant(observer)
        self._calls = Calls(self._seconds)
        self._done: dict[int, Applied] = {}
        self.brought_back: set[int] = set()
        """The positions of the steps that have again what they had before."""
        self._outcomes = [
            Outcome(step.change.provider.key, step.change.kind, "not_attempted") for step in steps
        ]

    def retire(self) -> tuple[str, ...]:
        """Have what was kept for the way back taken down; call it once the report is written down.
        What went wrong with it.
        """
        problems: list[str] = []
        for index, applied in sorted(self._done.items()):
            if applied.retire is not None:
                problem = self._guarded(applied.retire, result_is_problem=False)
                if problem is not None:
                    key = self._steps[index].change.provider.key
                    problems.append(f"{key}: what it had before is not down: {self._clean(index, problem)}")
        return tuple(problems)

    def close(self) -> None:
        """End it. What plugins opened on its event loop works until here."""
        self._calls.close()

    def report(self, state: Literal["applied", "pending", "failed"]) -> Report:
        """How far it came."""
        return Report(state, tuple(self._outcomes))

    def run(self) -> Report:
        """Apply every step, or none."""
        for index, step in enumerate(self._steps):
            if self._observe.stopped is not None:
                self._fail(index, "not_attempted", f"stopped: {self._observe.stopped}", 0.0)
                return self.report("failed")
            started = monotonic()
            try:
                self._journal.touch(index)
                outcome = self._apply(index, step)
            except (HookError, StoreError, _Unhealthy) as error:
                self._fail(index, "failed", retold(error, self._secrets), monotonic() - started)
                return self.report("failed")
            except _Lost as error:
                self._fail(index, "unknown", retold(error, self._secrets), monotonic() - started)
                return self.report("failed")
            except BaseException:
                self._fail(index, "unknown", "interrupted", monotonic() - started)
                raise
            self._outcomes[index] = evolve(outcome, seconds=monotonic() - started)
        if not self._steps:
            return Report("nothing")
        pending = any(outcome.state == "pending" for outcome in self._outcomes)
        return self.report("pending" if pending else "applied")

    def _apply(self, index: int, step: Step) -> Outcome:
        outcome = self._outcomes[index]
        if step.hooks is None or not step.hooks.implements("apply_config"):
            self._done[index] = Applied(undo=_nothing)
            gone = "no installed plugin owns its type any more; forgotten"
            detail = gone if step.hooks is None else "its plugin has nothing to apply; recorded"
            return evolve(outcome, state="applied", detail=detail)
        if step.change.kind == "restore" and step.before.problem:
            raise _Unhealthy(step.before.problem)
        applied = self._call_hook(step)
        detail = self._clean(index, applied.detail)
        if applied.pending is not None:
            reason = self._clean(index, applied.pending)
            if self._require_healthy:
                raise _Unhealthy(f"not healthy: {reason}")
            return evolve(outcome, state="pending", detail=detail, error=reason)
        self._done[index] = applied
        self._check(step, applied)
        return evolve(outcome, state="applied", detail=detail)

    def _timed(self, step: Step, name: StepName) -> _Timed:
        position = self._steps.index(step) + 1
        begun = Progress(step.change.provider.key, name, None, position, len(self._steps))
        return _Timed(self._observe, begun)

    def _clean(self, index: int, text: object) -> str:
        """A plugin's words as one line without the secrets of the provider that it was given."""
        line = " ".join(str(text or "").split())
        return scrubbed(line, _secrets_of(self._steps[index])) if line else ""

    @cached_property
    def _secrets(self) -> frozenset[str]:
        """Those of every provider: one plugin may serve many, and mix them up where it fails."""
        return frozenset().union(*map(_secrets_of, self._steps))

    def _call_hook(self, step: Step) -> Applied:
        hooks = step.hooks
        assert hooks is not None  # noqa: S101 (asked before)
        provider = step.change.provider
        with self._timed(step, "apply"):
            try:
                result = self._calls.call(lambda: hooks.apply_config(provider, step.config, step.previous))
            except Late as error:
                problem = f"did not answer within {self._seconds:g} s and may still be running"
                raise _Lost(str(hooks.owner.failed("apply_config", problem, provider.key))) from error
            except HookError:
                raise
            except Exception as error:
                raise hooks.owner.failed("apply_config", described(error), provider.key) from error
        return result if isinstance(result, Applied) else Applied(undo=_nothing)

    def _check(self, step: Step, applied: Applied) -> None:
        if applied.check is None:
            return
        with self._timed(step, "check"):
            wrong = self._guarded(applied.check)
        if wrong is not None:
            raise _Unhealthy(f"check failed: {wrong}")

    def _fail(self, index: int, state: State, error: str, seconds: float) -> None:
        failed = self._outcomes[index]
        self._outcomes[index] = evolve(failed, state=state, error=self._clean(index, error), seconds=seconds)
        lost = {index} if state == "unknown" else set()
        back = [
            each
            for each, step in enumerate(self._steps)
            if (each in self._done or not step.before.certain) and each not in lost
        ]
        if not back:
            return
        with suppress(StoreError):  # what was touched is written down; that is what has to be repaired
            self._journal.undo()
        for each in reversed(back):
            self._undo(each, index)

    def _undo(self, index: int, failed: int) -> None:
        outcome = self._outcomes[index]
        # Until the undo is back, nobody can say what the provider runs with; the user may interrupt it.
        self._outcomes[index] = _lost(outcome, "undo was interrupted")
        with self._timed(self._steps[index], "undo"):
            problem = self._taken_back(index)
        if problem:
            text = f"undo failed: {self._clean(index, problem)}"
            self._outcomes[index] = _lost(outcome, text)
        else:
            self.brought_back.add(index)
            state: State = "failed" if index == failed else "rolled_back"
            self._outcomes[index] = evolve(outcome, state=state)

    def _taken_back(self, index: int) -> str | None:
        """Why a provider may not have what it had before, or `None` when it does."""
        step, done = self._steps[index], self._done.get(index)
        if not step.before.certain or done is None or done.undo is None:
            return self._driven_back(step)
        problem = self._guarded(done.undo, result_is_problem=False)
        if problem is None and done.check_undo is not None:
            problem = self._guarded(done.check_undo)
            return None if problem is None else f"not healthy after it: {problem}"
        return problem

    def _driven_back(self, step: Step) -> str | None:
        """As `_taken_back`, by the provider's own hook, called the other way round."""
        hooks, before, provider = step.hooks, step.before, step.change.provider
        if before.problem or hooks is None:
            return before.problem or "its plugin is gone"
        applied: list[Applied] = []

        now = step.previous if before.config is None and step.config is None else step.config

        def drive() -> Any:
            return hooks.apply_config(provider, before.config, now)

        def keep(result: Any) -> None:
            applied.append(result if isinstance(result, Applied) else Applied())

        problem = self._guarded(drive, keep=keep)
        if problem is not None:
            return problem
        if applied[0].pending is not None:
            return f"it cannot be reached: {applied[0].pending}"
        return None if applied[0].check is None else self._guarded(applied[0].check)

    def _guarded(
        self,
        function: Callable[[], Any],
        *,
        result_is_problem: bool = True,
        keep: Callable[[Any], None] | None = None,
    ) -> str | None:
        """What went wrong in a plugin's check or undo, or `None`. `keep` is given the result."""
        try:
            result = self._calls.call(function)
        except Late:
            return f"no answer within {self._seconds:g} s"
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a plugin's; it becomes the report)
            return described(error, self._secrets).removeprefix("raised ")
        if keep is not None:
            keep(result)
            return None
        return str(result) if result_is_problem and result is not None else None


def _lost(outcome: Outcome, why: str) -> Outcome:
    return evolve(outcome, state="unknown", error=f"{outcome.error}; {why}" if outcome.error else why)


def _secrets_of(step: Step) -> frozenset[str]:
    return secrets_in(step.config) | secrets_in(step.previous) | secrets_in(step.before.config)


def _nothing() -> None:
    """The undo of what touched nothing."""


class _Tolerant:
    """An observer that cannot stop an apply half way, whatever happens to its terminal. `stopped` is
    why it wants the apply taken back, where it does.
    """

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer
        self.stopped: StopApply | None = None

    def __call__(self, progress: Progress) -> None:
        if self._observer is None:
            return
        try:
            self._observer(progress)
        except StopApply as stop:
            self.stopped = stop
        except Exception:  # noqa: BLE001, S110 (whoever looks on is not to do harm)
            pass


class _Timed:
    """Tells the observer when a step begins and how long it took."""

    def __init__(self, observe: Observer, begun: Progress) -> None:
        self._observe, self._begun = observe, begun

    def __enter__(self) -> None:
        self._started = monotonic()
        self._observe(self._begun)

    def __exit__(self, *_: object) -> None:
        self._observe(evolve(self._begun, seconds=monotonic() - self._started))
