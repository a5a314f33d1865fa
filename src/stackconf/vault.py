"""The sealed secrets of one stack: sealing, opening, listing, rotating, dropping.

A document holds `${sealed:ID}` and never changes; the table `secret` holds a token for each id. In
the token stands, beside the secret, for which id, provider and field it is, so neither a token nor
a reference that was copied elsewhere opens there. A new key replaces tokens and nothing else.

The key of the digests of what is applied is one of the sealed, from the first sealed secret on.
Whoever has the store's file and no key can then not try likely secrets against the digests. It is
the same key before and after, and after each rotation, so nothing looks changed for it.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from stackconf import sealing
from stackconf.errors import SecretError
from stackconf.resolve.layers import Path, dotted
from stackconf.resolve.references import fetched, kind_of, references_in, sealed_id
from stackconf.store.base import DIGEST_KEY

if TYPE_CHECKING:
    from stackconf.sealing import Keyring, SealedSecret
    from stackconf.store.base import Configuration, Store


@frozen
class SecretUse:
    """A reference to a secret in a registered configuration.

    `problem` says why it cannot be resolved here, and is empty where it can; `key` is the id of the
    key that opens a sealed one (or, where none here does, that sealed it).
    """

    configuration: str
    provider: str
    path: str
    kind: Literal["env", "file", "sealed"]
    reference: str
    problem: str = ""
    key: str = ""


@frozen
class Rotated:
    """What a rotation did: `changed` secrets are now sealed with `key`, `unchanged` were already."""

    key: str
    changed: int
    unchanged: int


@frozen
class Dropped:
    """What was dropped: `unused`, to which no kept revision refers, and `lost`, which no key opens."""

    unused: int
    lost: int = 0


class Vault:
    """The sealed secrets of one store, and the keys to them. Keys are looked up at each use."""

    def __init__(self, store: Store, keys: Callable[[], Keyring]) -> None:
        self._store = store
        self._keys = keys
        self._arriving: dict[str, SealedSecret] = {}
        """Sealed, but not in the store yet."""

    def open(self, identity: str, provider: str, path: Path) -> object:
        """The secret that was sealed for this field. Raises `SecretError`."""
        return self._opened(self._keys(), identity, provider, path)[0]

    def seal(self, value: object, provider: str, path: Path) -> tuple[str, SealedSecret]:
        """A new id, and the value sealed for it. Raises `SecretError` where there is no key."""
        identity = secrets.token_hex(8)
        clear = {"id": identity, "provider": provider, "path": list(path), "value": value}
        return identity, self._keys().seal(json.dumps(clear).encode())

    def holds(self, reference: object, value: object, provider: str, path: Path) -> bool:
        """Whether a reference is to exactly this value, sealed for this field."""
        identity = sealed_id(reference)
        if identity is None:
            return False
        try:
            there = self.open(identity, provider, path)
        except SecretError:
            return False
        return type(there) is type(value) and there == value

    def check(self) -> None:
        """Raise `SecretError` when nothing can be sealed here."""
        self._keys().check()

    @contextmanager
    def arriving(self, sealed: Mapping[str, SealedSecret]) -> Iterator[None]:
        """Open these too, before they are in the store."""
        self._arriving.update(sealed)
        try:
            yield
        finally:
            for identity in sealed:
                self._arriving.pop(identity, None)

    def wrap(self, key: bytes) -> SealedSecret:
        """The digest key, sealed."""
        return self._keys().seal(json.dumps({"id": DIGEST_KEY, "value": key.hex()}).encode())

    def unwrap(self, sealed: SealedSecret) -> bytes:
        """The digest key that was sealed."""
        try:
            clear = json.loads(self._keys().open(sealed)[0])
        except SecretError as error:
            problem = f"the key of the store's digests of secrets is sealed: {error.problem}"
            raise SecretError(problem, error.hint) from None
        if clear["id"] != DIGEST_KEY:
            raise SecretError("where the store's key of digests belongs stands another secret")
        return bytes.fromhex(clear["value"])

    @property
    def keys(self) -> tuple[str, ...]:
        """The ids of the keys that are here, the newest first."""
        return self._keys().ids

    def list(self) -> list[SecretUse]:
        """Every reference to a secret in the registered configurations of the head revision."""
        keys = self._keys()
        return [
            self._use(keys, configuration.name, *found)
            for configuration in self._store.read().state.configurations.values()
            for found in _references(configuration)
        ]

    def rotate(self) -> Rotated:
        """Seal every secret with the newest key, all or none. After that the other keys can go.

        Raises `SecretError`, and changes nothing, when there is no key or one secret does not open.
        """
        keys = self._keys()
        keys.check()
        done = Rotated(keys.ids[0], 0, 0)

        def change(before: Mapping[str, SealedSecret], _referred: frozenset[str]) -> dict[str, SealedSecret]:
            nonlocal done
            after = {identity: self._resealed(keys, identity, each) for identity, each in before.items()}
            same = [key for key in before if key != DIGEST_KEY and after[key] is before[key]]
            changed = [key for key in before if key != DIGEST_KEY and after[key] is not before[key]]
            done = Rotated(keys.ids[0], len(changed), len(same))
            return after

        if self._store.sealed():
            self._store.change_sealed(change)
        return done

    def drop(self, *, lost: bool = False) -> Dropped:
        """Drop the sealed secrets to which no kept revision refers; with `lost`, also those that no
        key opens that is here. Those are gone for good, and their fields are to be set again.
        """
        keys = self._keys()
        done = Dropped(0)

        def change(before: Mapping[str, SealedSecret], referred: frozenset[str]) -> dict[str, SealedSecret]:
            nonlocal done
            used = {key: each for key, each in before.items() if key in referred or key == DIGEST_KEY}
            kept = {key: each for key, each in used.items() if not lost or _opens(keys, each)}
            gone = used.keys() - kept.keys() - {DIGEST_KEY}
            done = Dropped(len(before) - len(used), len(gone))
            return kept

        if self._store.sealed():
            self._store.change_sealed(change)
        return done

    def _opened(self, keys: Keyring, identity: str, provider: str, path: Path) -> tuple[object, str]:
        """The secret for a field, and the id of the key that opened it."""
        sealed = self._arriving.get(identity) or self._store.sealed_one(identity)
        if sealed is None:
            raise SecretError("the sealed secret is no longer in the store", "register it again")
        clear, key = self._clear(keys, identity, sealed)
        if (clear["provider"], clear["path"]) != (provider, list(path)):
            problem = f"the sealed secret is for {clear['provider']}: config.{dotted(clear['path'])}"
            raise SecretError(f"{problem}, and not for this field", "register it again")
        return clear["value"], key

    def _clear(self, keys: Keyring, identity: str, sealed: SealedSecret) -> tuple[dict[str, Any], str]:
        try:
            opened, key = keys.open(sealed)
        except SecretError as error:
            raise SecretError(f"the sealed secret cannot be opened: {error.problem}", error.hint) from None
        clear: dict[str, Any] = json.loads(opened)
        if clear["id"] != identity:
            raise SecretError("the sealed secret stands where another belongs", "register it again")
        return clear, key

    def _use(self, keys: Keyring, configuration: str, provider: str, path: Path, reference: str) -> SecretUse:
        kind = kind_of(reference)
        identity = sealed_id(reference)
        problem = key = ""
        try:
            if identity is None:
                fetched(reference, provider, path, None)
            else:
                key = self._opened(keys, identity, provider, path)[1]
        except SecretError as error:
            problem = str(error)
            there = None if identity is None else self._store.sealed_one(identity)
            key = there.key if there else ""
        return SecretUse(configuration, provider, f"config.{dotted(path)}", kind, reference, problem, key)

    def _resealed(self, keys: Keyring, identity: str, sealed: SealedSecret) -> SealedSecret:
        try:
            clear, key = keys.open(sealed)
        except SecretError as error:
            uses = [each for each in self.list() if sealed_id(each.reference) == identity]
            where = f"{uses[0].provider}: {uses[0].path}" if uses else "an older revision"
            where = "the store's digests" if identity == DIGEST_KEY else where
            hint = f"{error.hint}; `stackconf secrets drop --lost` gives up what no key opens"
            raise SecretError(f"nothing was changed: the secret of {where}: {error.problem}", hint) from None
        return sealed if key == keys.ids[0] == sealed.key else keys.seal(clear)


def write_new_key(path: str | os.PathLike[str], *, add: bool = False) -> str:
    """Make a key and write it to a file that only its owner may read; the key's id.

    The file must not be there. With `add` it may: the new key becomes its first, which seals, and
    the others stay, which open. Raises `SecretError`.
    """
    from stackconf.atomic import write_whole

    file = FilePath(path)
    key = sealing.new_key()
    try:
        if add and file.exists():
            sealing.keys_in(file)
            write_whole(file, f"{key}\n".encode() + file.read_bytes())
        else:
            with open(file, "x", encoding="ascii", opener=_for_owner) as new:
                new.write(f"{key}\n")
                new.flush()
                os.fsync(new.fileno())
    except FileExistsError:
        hint = "give another name, or `--add-to` puts a new key before those in it"
        raise SecretError(f"{file} is there already; it was not replaced", hint) from None
    except (OSError, ValueError) as error:
        why = (
            error.strerror if isinstance(error, OSError) and error.strerror else "no file can have that name"
        )
        raise SecretError(f"{file}: {why.lower()}") from None
    return sealing.key_id(key)


def _for_owner(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _opens(keys: Keyring, sealed: SealedSecret) -> bool:
    try:
        keys.open(sealed)
    except SecretError:
        return False
    return True


def _references(configuration: Configuration) -> Iterator[tuple[str, Path, str]]:
    for api, entries in configuration.providers.items():
        for entry in entries:
            for path, reference in references_in(entry["config"]):
                yield f"{api}/{entry['provider_id']}", path, reference
