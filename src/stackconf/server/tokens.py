"""Who may ask: bearer tokens with a name and what they may do, kept as digests only."""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import field, frozen

from stackconf.errors import InvalidConfig

Scope: TypeAlias = Literal["read", "write"]
"""`write` may do all that `read` may, and change things."""

TOKEN_VARIABLE = "STACKCONF_SERVE_TOKEN"  # noqa: S105 (the name of a variable)
_SHORTEST = 16
_HOW = "a line is TOKEN, or NAME SCOPE TOKEN, where SCOPE is read or write"


@frozen
class Token:
    """One token: what it is called in revisions and logs, and what it may do."""

    name: str
    scope: Scope
    digest: bytes = field(repr=False)

    def may(self, scope: Scope) -> bool:
        """Whether it may do that."""
        return self.scope in {scope, "write"}


@frozen
class Tokens:
    """The tokens of a server; false where there is none."""

    listed: tuple[Token, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.listed)

    def of(self, authorization: str) -> Token | None:
        """The token of an `Authorization` header. Every one is compared, in constant time."""
        scheme, _, given = authorization.partition(" ")
        digest = _digest(given.strip()) if scheme.lower() == "bearer" else b""
        found = [token for token in self.listed if hmac.compare_digest(token.digest, digest)]
        return found[0] if found else None


def read_tokens(path: str | os.PathLike[str]) -> Tokens:
    """The tokens in a file, one on a line; empty lines and those that begin with `#` do not count.

    Raises `InvalidConfig`, which never says a token: for a file that cannot be read or that others
    than its owner and group may read, a line that is none, a name given twice, or no token at all.
    """
    name = os.fsdecode(path)
    try:
        mode = Path(path).stat().st_mode
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidConfig(f"{name}: {reason}") from error
    if mode & stat.S_IROTH and not mode & stat.S_ISVTX:
        raise InvalidConfig(f"{name}: everybody may read these tokens; `chmod o-r {name}`")
    lines = enumerate(text.splitlines(), 1)
    return _tokens(
        _token(line, f"{name}:{number}")
        for number, line in lines
        if line.strip() and not line.lstrip().startswith("#")
    )


def tokens_of(environ: Mapping[str, str], path: str | os.PathLike[str] | None) -> Tokens:
    """The tokens of the file, if one is named, and that of `STACKCONF_SERVE_TOKEN`."""
    listed = [*read_tokens(path).listed] if path is not None else []
    given = environ.get(TOKEN_VARIABLE)
    if given:
        listed.append(_token(given, TOKEN_VARIABLE))
    return _tokens(listed) if listed else Tokens()


def _tokens(found: Iterable[Token]) -> Tokens:
    listed = tuple(found)
    if not listed:
        raise InvalidConfig(f"the file of tokens holds none; {_HOW}")
    names = [token.name for token in listed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidConfig(f"two tokens are called `{twice}`; give each a name of its own")
    return Tokens(listed)


def _token(line: str, where: str) -> Token:
    parts = line.split()
    if len(parts) == 1:
        parts = ["token", "write", *parts]
    if len(parts) != 3 or parts[1] not in {"read", "write"}:  # noqa: PLR2004 (the three that the message names)
        raise InvalidConfig(f"{where}: not a token; {_HOW}")
    name, scope, secret = parts
    if len(secret) < _SHORTEST or not secret.isascii():
        raise InvalidConfig(f"{where}: a token has at least {_SHORTEST} characters, all of them ASCII")
    return Token(name, "write" if scope == "write" else "read", _digest(secret))


def _digest(secret: str) -> bytes:
    return sha256(secret.encode()).digest()
