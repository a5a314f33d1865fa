"""What a store keeps and promises; SQLite is one, a database server can be another.

Revisions are immutable and gapless: 1, 2, 3, … with 0 for "nothing registered yet". Each holds
the whole state, so that reading one needs no other. A write that returned is durable.

Old revisions may be pruned: from the oldest kept on there is no gap. Below it stand only those
that are still applied, or that an open attempt is for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import field, frozen

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from stackconf.apply import Outcome, Report
    from stackconf.plan import AppliedRecord, Snapshot
    from stackconf.sealing import SealedSecret
    from stackconf.types import Provider


@frozen
class Configuration:
    """A named configuration: what it says of each provider, and who gave it.

    `providers` has the stack file's own shape: `{api: [{provider_id, provider_type, config}]}`.
    `source` is `"user"`, or the distribution that ships it; `revision` is the one that brought it.
    `problem` says why what it says cannot be read (somebody changed the store by hand, or it is
    damaged); then `providers` is empty, and `digest` is the name of what should be there.
    """

    name: str
    providers: Mapping[str, Sequence[Mapping[str, Any]]]
    source: str = "user"
    revision: int = 0
    problem: str = ""
    digest: str = field(default="", eq=False, repr=False)


@frozen
class State:
    """What is registered and what is assigned, low to high, at one revision."""

    configurations: Mapping[str, Configuration] = field(factory=dict)
    assigned: tuple[str, ...] = ()


@frozen
class Revision:
    """One immutable step: who changed what, when (UTC, ISO 8601), and the state after it.

    `lost` says why its state is not known: the store was damaged and recovered. Then it is empty.
    `at` never precedes that of the revision before it. `restores` is the revision that a rollback
    went back to.
    """

    number: int
    at: str
    actor: str
    action: str
    subject: str
    state: State
    lost: str = ""
    restores: int | None = None

    @property
    def summary(self) -> RevisionSummary:
        """It without its state."""
        return RevisionSummary(
            self.number, self.at, self.actor, self.action, self.subject, self.restores, self.lost
        )


@frozen
class RevisionSummary:
    """A revision without its state, as history lists it."""

    number: int
    at: str
    actor: str
    action: str
    subject: str
    restores: int | None = None
    lost: str = ""


NOTHING = Revision(0, "", "", "", "", State())
"""The revision before the first."""


@frozen
class Attempt:
    """One apply. `state` is that of its report, `begun` while it is open, or `cut_off`: its process
    ended before it did, and a later attempt took over.
    """

    number: int
    revision: int
    begun_at: str
    finished_at: str | None
    state: str
    actor: str
    report: Mapping[str, Any]


@frozen
class Pruned:
    """How many revisions, documents and attempts went, and the oldest revision kept.

    `pinned` are the revisions below that one which are kept because they are in use.
    """

    oldest: int
    revisions: int = 0
    documents: int = 0
    attempts: int = 0
    pinned: tuple[int, ...] = ()


@frozen
class Status:
    """How the last attempt left one provider: the state of its outcome, or `restored` where it was given
    back what it had.
    """

    provider: str
    state: str
    attempt: int
    revision: int
    error: str
    at: str


@frozen
class JournalStep:
    """One provider's turn in an attempt, written down before anything is touched.

    `target` is the snapshot of what it is to run with, no secret in the clear; empty if it leaves.
    """

    provider: Provider
    kind: str
    target: Snapshot = field(factory=dict, repr=False)


@frozen
class OpenAttempt:
    """An attempt that has begun and not ended: it runs now, or its process was killed.

    `touched` are the steps that had begun, in order; `undoing` says that it was taking them back.
    """

    number: int
    revision: int
    begun_at: str
    actor: str
    undoing: bool
    steps: tuple[JournalStep, ...]
    touched: tuple[JournalStep, ...]


@frozen
class View:
    """What a store holds, at one moment: what is wanted, what is applied, what was cut off."""

    revision: Revision
    applied: Mapping[str, AppliedRecord]
    """By provider key, or by `stackconf.plan.place_of` where one key has providers of two types.
    Those that an open attempt has touched are marked as unknown.
    """
    open_attempt: OpenAttempt | None = None
    attempt: int = 0
    """The number of the newest attempt."""


@frozen
class Holder:
    """Who is applying now: the process, the person, and since when (UTC, ISO 8601)."""

    pid: int
    actor: str
    since: str


class Guard(Protocol):
    """Keeps the store's digest key sealed, once a secret is."""

    def wrap(self, key: bytes) -> SealedSecret:
        """The key, sealed. Raises `SecretError`."""
        ...

    def unwrap(self, sealed: SealedSecret) -> bytes:
        """The key that was sealed. Raises `SecretError`."""
        ...


SecretsChange: TypeAlias = (
    "Callable[[Mapping[str, SealedSecret], frozenset[str]], Mapping[str, SealedSecret]]"
)
"""From the sealed secrets by id, and the ids that some kept revision refers to, to what shall stay."""

DIGEST_KEY = "digest-key"
"""The id under which the digest key stands among the sealed secrets, once it is one."""


class Store(Protocol):
    """The store's promises. Every method raises `StoreError` when the store fails."""

    guard: Guard | None
    keep: int | None
    """Set by whoever has the keys."""

    def beside(self) -> Store:
        """The same store once more, for who must not wait until another thread has written."""
        ...

    def trouble(self) -> str:
        """Why nothing can be written now, as far as that is seen without trying; "" otherwise."""
        ...

    def head(self) -> int:
        """The newest revision's number; 0 where there is none."""
        ...

    def read(self, revision: int | None = None) -> Revision:
        """A revision, the head by default. Raises `UnknownName` for one that does not exist, or was
        pruned, and `RevisionLost` for one whose state is not known any more.
        """
        ...

    def append(
        self,
        expected: int,
        state: State,
        *,
        action: str,
        subject: str,
        actor: str,
        sealed: Mapping[str, SealedSecret] | None = None,
        restores: int | None = None,
    ) -> Revision:
        """Make the next revision, and prune. Raises `Conflict` when the head is not `expected`.

        `sealed` are the secrets, by id, to which it is the first to refer. With the first of all
        the store's digest key is sealed as well, by the guard.
        """
        ...

    def sealed(self) -> Mapping[str, SealedSecret]:
        """Every sealed secret by its id, the digest key among them if it is one."""
        ...

    def sealed_one(self, identity: str) -> SealedSecret | None:
        """One sealed secret."""
        ...

    def change_sealed(self, change: SecretsChange) -> None:
        """Change the sealed secrets, all in one step. What was there before is wiped from the disk
        as far as the store can do so. Without its row, the digest key becomes a new one.
        """
        ...

    def follow(self, from_revision: int) -> Iterator[Revision]:
        """Every revision kept after a number, oldest first, up to the head of now; lost ones too."""
        ...

    def oldest(self) -> int:
        """The oldest revision kept, from which on there is no gap; 1 where none was pruned."""
        ...

    def revisions(self, limit: int | None = None) -> Sequence[RevisionSummary]:
        """Every revision kept, newest first, at most `limit` of them."""
        ...

    def prune(self, keep: int) -> Pruned:
        """Forget all but the newest `keep` revisions and attempts, in one step.

        Never forgotten: the head, a revision that is applied to a provider, and one that an open
        attempt is for. What no revision says any more is deleted with them.
        """
        ...

    def view(self) -> View:
        """The head revision, what is applied and the open attempt, all of one moment."""
        ...

    def applying(self, actor: str, *, wait: float = 0.0) -> AbstractContextManager[None]:
        """Keep every other apply of this stack away. Raises `ApplyBusy` when one is still running
        after `wait` seconds. Whoever holds it and is killed lets go of it.
        """
        ...

    def holder(self) -> Holder | None:
        """Who is applying now."""
        ...

    def hosting(self, address: str) -> AbstractContextManager[None]:
        """Be the one process that hosts this stack, so that no other applies. Raises `ApplyBusy`."""
        ...

    def host(self) -> Holder | None:
        """The process that hosts this stack; its `actor` is the address."""
        ...

    def ended(self, providers: Collection[str]) -> None:
        """Forget what these providers run with: the process that they lived in has ended."""
        ...

    def begin(self, revision: int, actor: str, steps: Sequence[JournalStep]) -> int:
        """Write down an attempt and its targets before anything is touched; its number.

        The first step counts as touched. An attempt that was cut off ends here, and what it had
        touched is recorded as unknown. Only called inside `applying`.
        """
        ...

    def touch(self, attempt: int, position: int) -> None:
        """Write down that a step begins; those before it are done."""
        ...

    def undo(self, attempt: int) -> None:
        """Write down that an attempt begins to take back what it did."""
        ...

    def finish(
        self, attempt: int, report: Report, applied: Mapping[str, AppliedRecord], left: Sequence[str]
    ) -> None:
        """Write down how an attempt ended, what is applied now, and who left, in one step."""
        ...

    def applied(self) -> Mapping[str, AppliedRecord]:
        """What is applied, by provider key; see `View.applied`."""
        ...

    def attempts(self, limit: int | None = None) -> Sequence[Attempt]:
        """Every attempt kept, newest first, at most `limit` of them."""
        ...

    def status(self) -> Mapping[str, Status]:
        """How the last attempt left each provider."""
        ...

    def ensure(self) -> None:
        """Make the store if there is none, so that its digest key is the one it will keep."""
        ...

    def identity(self) -> str:
        """A name for this store that no other has."""
        ...

    def digest_key(self) -> bytes:
        """The random key of this store's secret digests. Raises `SecretError` when it is sealed and
        cannot be opened here.
        """
        ...

    def close(self) -> None:
        """Let go of the store's resources."""
        ...


def restored_by(outcome: Mapping[str, Any]) -> bool:
    """Whether an outcome (as plain data) gave a provider back what it had."""
    return bool(outcome["kind"] == "restore" and outcome["state"] == "applied")


def outcome_data(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain data."""
    return {
        "provider": outcome.provider,
        "kind": outcome.kind,
        "state": outcome.state,
        "detail": outcome.detail,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
    }
