"""Secrets at rest: the keys, and how a secret is sealed with one.

A sealed secret is a token of Fernet (AES-128 in CBC mode with HMAC-SHA-256, of the library
`cryptography`). Fernet has one way to be used and no parameter to get wrong: the nonce is its own,
nothing has to be counted, and what was changed by a single bit does not open. Several keys work
side by side as in its MultiFernet: the newest seals, each opens. Fernet binds a token to no place,
so what is sealed says itself where it belongs, and is refused elsewhere (`vault.py`).

A key is 32 random bytes in URL-safe base64, as `cryptography` makes them. Keys are text in
`STACKCONF_SECRET_KEY`, or lines of a file, the newest first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from stackconf.errors import SecretError

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

KEY_VARIABLE = "STACKCONF_SECRET_KEY"
KEY_FILE_VARIABLE = "STACKCONF_SECRET_KEY_FILE"
SETTING = "secret_key_file"
"""In the stack file, below `stackconf:`; relative to that file."""

HOW_TO_HAVE_A_KEY = f"`stackconf secrets new-key -o FILE` makes a key, {KEY_FILE_VARIABLE}=FILE uses it"
INSTALL = 'pip install "stackconf[secrets]"'

_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")
_FEWEST_BYTES = 12
"""Of 32 random bytes more than 12 differ, but for one case in 10^15; typed ones are caught by it."""
_MOST_TEXT = 64 * 1024
_TOO_OPEN = stat.S_IRWXO | stat.S_IWGRP


@frozen
class SealedSecret:
    """A sealed secret as it is stored. `key` is the id of the key that sealed it, which is no secret."""

    token: bytes = field(repr=False)
    key: str


class Keyring:
    """The keys that are here, the newest first. `problem` is why those that are given are none.

    >>> Keyring([new_key()]).ids == Keyring([]).ids
    False
    """

    def __init__(self, keys: Sequence[str], problem: SecretError | None = None) -> None:
        self.ids = tuple(map(key_id, keys))
        self._keys = tuple(keys)
        self._problem = problem
        self._fernets: tuple[Fernet, ...] | None = None

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.ids)})"

    def seal(self, clear: bytes) -> SealedSecret:
        """Seal with the newest key. Raises `SecretError` where there is none, or no library."""
        return SealedSecret(self._opened()[0].encrypt(clear), self.ids[0])

    def open(self, sealed: SealedSecret) -> tuple[bytes, str]:
        """What was sealed, and the id of the key that opened it. Raises `SecretError`."""
        if not self._keys and self._problem is None:
            problem = f"it is sealed with the key `{sealed.key}`, and there is no key here"
            raise SecretError(problem, f"set {KEY_FILE_VARIABLE} to the file that has it")
        fernets = self._opened()
        from cryptography.fernet import InvalidToken

        for key, fernet in zip(self.ids, fernets, strict=True):
            try:
                return fernet.decrypt(sealed.token), key
            except InvalidToken:
                continue
        if sealed.key in self.ids:
            raise SecretError("what is stored for it was changed or damaged", "register it again")
        here = ", ".join(f"`{each}`" for each in self.ids)
        problem = f"it is sealed with the key `{sealed.key}`, and only {here} is here"
        raise SecretError(problem, "add that key, or register it again")

    def check(self) -> None:
        """Raise `SecretError` when nothing can be sealed or opened here."""
        self._opened()

    def _opened(self) -> tuple[Fernet, ...]:
        if not self._keys:
            raise self._problem or no_key()
        if self._fernets is None:
            try:
                from cryptography.fernet import Fernet
            except ImportError:
                raise SecretError("the library `cryptography` is not installed", INSTALL) from None
            self._fernets = tuple(map(Fernet, self._keys))
        return self._fernets


def no_key() -> SecretError:
    """What is said where there is no key."""
    return SecretError("there is no key here", HOW_TO_HAVE_A_KEY)


def new_key() -> str:
    """A new key, as text.

    >>> len(new_key()), new_key() == new_key()
    (44, False)
    """
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii")


def key_id(key: str) -> str:
    """A short name for a key. It does not give the key away.

    >>> key_id("A" * 43 + "=")
    '800ebc31'
    """
    return hashlib.blake2b(key.encode(), digest_size=4, person=b"stackconf-key").hexdigest()


def keyring(setting: Path | None = None, environ: Mapping[str, str] | None = None) -> Keyring:
    """The keys that are configured: in the environment, in a file that it names, or in the file that
    the stack file names. The first of these that is given counts, alone.

    Never raises: what is wrong with the keys is said by whoever needs one.
    """
    given = os.environ if environ is None else environ
    try:
        if text := given.get(KEY_VARIABLE, "").split():
            return Keyring(_keys((f"{KEY_VARIABLE}, key {at}", each) for at, each in enumerate(text, 1)))
        named = given.get(KEY_FILE_VARIABLE)
        path = Path(named) if named else setting
        return Keyring([]) if path is None else Keyring(keys_in(path))
    except SecretError as error:
        return Keyring([], error)


def keys_in(path: Path) -> list[str]:
    """The keys of a file, one a line; empty lines and those that begin with `#` do not count.

    Raises `SecretError` in one line, in which no part of a key stands.
    """
    text = _text_of(path)
    lines = [(f"{path}:{at}", line.strip()) for at, line in enumerate(text.splitlines(), 1)]
    keys = _keys((where, line) for where, line in lines if line and not line.startswith("#"))
    if not keys:
        raise SecretError(f"the key file {path} has no key in it", HOW_TO_HAVE_A_KEY)
    return keys


def _text_of(path: Path) -> str:
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            found = os.fstat(file.fileno())
            _check_file(path, found.st_mode)
            data = file.read(_MOST_TEXT + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no file has that name"
        raise SecretError(f"the key file {path} cannot be read: {why.lower()}", HOW_TO_HAVE_A_KEY) from None
    if len(data) > _MOST_TEXT:
        raise SecretError(f"the key file {path} is no key file: it is too large", HOW_TO_HAVE_A_KEY)
    return data.decode("utf-8", "replace")


def _without_waiting(name: str, flags: int) -> int:
    """Open a file that may be a pipe to which nobody writes."""
    return os.open(name, flags | os.O_NONBLOCK)


def _check_file(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise SecretError(f"the key file {path} is not a regular file", HOW_TO_HAVE_A_KEY)
    if mode & _TOO_OPEN:
        text = f"{stat.S_IMODE(mode):04o}"
        raise SecretError(f"the key file {path} is open to others (mode {text})", f"chmod 600 {path}")


def _keys(given: Iterable[tuple[str, str]]) -> list[str]:
    keys = []
    for where, key in given:
        hint = "`stackconf secrets new-key` makes one"
        if not _KEY.fullmatch(key):
            raise SecretError(f"{where}: this is no key; a key has 44 characters of base64", hint)
        try:
            raw = base64.urlsafe_b64decode(key)
        except (ValueError, binascii.Error):
            raise SecretError(f"{where}: this is no key", hint) from None
        if len(set(raw)) < _FEWEST_BYTES:
            raise SecretError(f"{where}: this key is not random, so it protects nothing", hint)
        keys.append(key)
    return keys
