"""References in place of secrets: which texts may be written, and the variables for those that may not.

A reference to the environment is written as it is. The literal parts of a secret, a default in a
secret's reference and a URL's password are not: a new variable stands there, named after the place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from stackconf.redact import passwords_in, replaced_passwords
from stackconf.stackfile.env import expand, reference, rewritten

if TYPE_CHECKING:
    from stackconf.resolve.layers import Path
    from stackconf.stackfile.env import Grammar

_SCHEMES = frozenset({"", "basic", "bearer", "token"})
"""What may stand beside the reference in a secret: the words of an HTTP `Authorization`."""
_PLACEHOLDERS = frozenset({"fake"})
"""What upstream's own files write where a key has to stand and none is meant; the server that reads them
does not start without it.
"""
_HELD = re.compile("\ue000(\\d+)\ue001")


@frozen
class Variable:
    """An environment variable that must be set where the exported file is read.

    `path` is where the file refers to it, below the provider's `config` or in the file; `what` says in a
    few words what its value is. The value itself is never here.
    """

    name: str
    provider: str
    path: str
    what: str


class Variables:
    """The variables that an export needs, with their values where they are known.

    `taken` are names that mean something already.
    """

    def __init__(self, grammar: Grammar, taken: Iterable[str], environ: Mapping[str, str]) -> None:
        self.grammar = grammar
        self.needed: dict[str, Variable] = {}
        self.values: dict[str, str] = {}
        """The values that are known, for reading the export again; never shown."""
        self._taken = set(taken)
        self._of_place: dict[tuple[str, Path], str] = {}
        self._environ = environ

    def place(self, provider: str, path: Path, where: str) -> Place:
        """A place in the file; `where` is its path for people."""
        return Place(self, provider, path, where)

    def new(self, place: Place, what: str, value: str | None, *, suffix: str = "") -> str:
        """The text that refers to a new variable, named after its place.

        A place has one for its whole text: what is written there later takes over what was.
        """
        known = self._of_place.get((place.provider, place.path)) if not suffix else None
        if known is not None:
            self.needed[known] = Variable(known, place.provider, place.where, what)
            self.values.update({known: value} if value else {})
            return reference(known, "", "", self.grammar)
        words = [*place.provider.split("/"), *map(str, place.path), suffix]
        base = re.sub(r"[^A-Z0-9]+", "_", "_".join(filter(None, words)).upper()).strip("_") or "SECRET"
        base = f"STACK_{base}" if base[0].isdecimal() else base
        name, number = base, 1
        while not self._is_free(name, value):
            number += 1
            name = f"{base}_{number}"
        self._taken.add(name)
        if not suffix:
            self._of_place[place.provider, place.path] = name
        self.need(name, place, what, value)
        return reference(name, "", "", self.grammar)

    def need(self, name: str, place: Place, what: str, value: str | None = None) -> None:
        """A variable that must be set; `value` is what it stands for where it is not set here."""
        self.needed.setdefault(name, Variable(name, place.provider, place.where, what))
        known = self._environ.get(name) or value
        if known:
            self.values.setdefault(name, known)

    def _is_free(self, name: str, value: str | None) -> bool:
        return name not in self._taken and self._environ.get(name) in {None, "", value}


@frozen
class Place:
    """One leaf of the file that is written, and what may stand there."""

    variables: Variables = field(repr=False)
    provider: str
    path: Path
    where: str

    def secret(self, text: str, value: str | None) -> str:
        """What stands for a secret's text in the file's grammar; `value` is what it yields."""
        if text in _PLACEHOLDERS:
            return text
        return self._kept_reference(text) or self.variables.new(self, "a secret", value)

    def plain(self, text: str) -> str:
        """What stands for a text of the file that is no secret, but may hold a URL's password."""
        grammar = self.variables.grammar
        held: list[tuple[str, str, str]] = []

        def hold(name: str, operator: str, rest: str) -> str:
            if passwords_in(rest):
                self.variables.need(name, self, "a URL with a password", rest)
                operator = rest = ""
            held.append((name, operator, rest))
            return f"\ue000{len(held) - 1}\ue001"

        masked = rewritten(text, grammar, hold)
        masked = replaced_passwords(masked, lambda password: self._password(password, held))
        return _HELD.sub(lambda match: reference(*held[int(match[1])], grammar), masked)

    def literal(self, text: str) -> str:
        """What stands for a text that is no reference, so that reading it yields the same text."""
        masked = expand(text, {}, self.variables.grammar)
        if masked.names or masked.failed:
            what = "a text that a stack file would take for a reference"
            return self.variables.new(self, what, text)
        return self.plain(text)

    def shown_url(self, shown: str, stars: str) -> str:
        """What stands for a redacted URL whose password nobody knows here."""
        while stars in shown:
            new = self.variables.new(self, "the password of the URL", None, suffix="password")
            shown = shown.replace(stars, new, 1)
        return shown

    def _password(self, password: str, held: list[tuple[str, str, str]]) -> str:
        if _HELD.sub("", password):
            value = None if _HELD.search(password) else password
            return self.variables.new(self, "the password of the URL", value, suffix="password")
        for match in _HELD.finditer(password):
            name, _, rest = held[int(match[1])]
            if rest:
                held[int(match[1])] = (name, "", "")
                self.variables.need(name, self, "the password of the URL", rest)
        return password

    def _kept_reference(self, text: str) -> str | None:
        """A secret's text, if all that is secret in it are references; their defaults are left out."""
        found: list[tuple[str, str, str]] = []
        grammar = self.variables.grammar

        def safe(name: str, operator: str, rest: str) -> str:
            if operator == "=" and rest in _PLACEHOLDERS:
                found.append((name, operator, ""))
                return reference(name, operator, rest, grammar)
            found.append((name, operator, rest))
            return reference(name, operator if not rest else "", "", grammar)

        kept = rewritten(text, grammar, safe)
        beside = rewritten(text, grammar, lambda *_: "").strip().lower()
        if not found or beside not in _SCHEMES or any(op == "+" and rest for _, op, rest in found):
            return None
        for name, _, rest in found:
            if rest:
                self.variables.need(name, self, "a secret, whose default is not copied", rest)
        return kept
