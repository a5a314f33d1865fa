r"""References to environment variables, in both of upstream's grammars.

| | llama-stack up to 0.2.12 (`"old"`) | from 0.2.13, and OGX (`"new"`) |
|---|---|---|
| the variable, which must be set | `${env.X}` | `${env.X}` |
| the variable, or a default | `${env.X:default}` | `${env.X:=default}` |
| a text if the variable is set, else nothing | `${env.X+text}` | `${env.X:+text}` |

Names are UPPERCASE letters, digits and `_`. A variable that is set to nothing counts as not set.
References do not nest and a default ends at the first `}`. A `~` that begins what a reference
yields is the home folder. Source: `replace_env_vars` in upstream's `distribution/stack.py`
(0.2.12) and `core/stack.py` (0.2.23 to OGX 1.5.0).

Upstream converts what a reference yields by its looks (the key `0123` becomes the number 123).
Here it stays text, an `EnvText`, for whoever knows the field's type to convert.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from attrs import frozen

from stackconf.types import Issue, Level

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Grammar: TypeAlias = Literal["new", "old"]

_PATTERNS: Final[dict[Grammar, re.Pattern[str]]] = {
    "new": re.compile(r"\$\{env\.([A-Z0-9_]+)(?::([=+])([^}]*))?}"),
    "old": re.compile(r"\$\{env\.([A-Z0-9_]+)(?:([:+])([^}]*))?}"),
}
_FORMS = re.compile(r"\$\{env\.[A-Z0-9_]+(:[=+]|[:+])(-?\d|-)?[^}]*}")
_REFERENCE = re.compile(r"\$\{env\.")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_NUMBER = re.compile(r"-\d")
_MISSPELT = re.compile(r"\$\{(?:ENV|Env)[.:]([A-Za-z0-9_]+)|\$\{env:([A-Za-z0-9_]+)|\$env\.([A-Za-z0-9_]+)")
_SHELL = re.compile(
    r"\$([A-Z][A-Z0-9_]+)|\$\{([A-Z][A-Z0-9_]+)(?::?[-=+][^}]*)?}|\{\{ ?([A-Z][A-Z0-9_]+) ?}}"
)
FORMS: Final[Mapping[Grammar, str]] = {
    "old": "llama-stack up to 0.2.12",
    "new": "llama-stack from 0.2.13 and OGX",
}
"""Who reads a grammar."""
_DEFAULT: Final[dict[Grammar, str]] = {"new": ":=", "old": ":"}
_CONDITION: Final[dict[Grammar, str]] = {"new": ":+", "old": "+"}


class EnvText(str):
    """Text that came, wholly or in part, from environment variables.

    It is an ordinary `str`, the text after expansion, with:

    * `names`: the variables that were looked up, set or not;
    * `whole`: the value is one reference and nothing else;
    * `reference`: the text before expansion, as it stands in the file; a default in it, and the text
      around it, may be secret. `shown` leaves the defaults out;
    * `grammar`: `"new"` or `"old"`;
    * `null`: the newer upstream turns this value into a null (a conditional that yields nothing,
      an empty default);
    * `failed`: an issue has been reported for this value, and it means nothing.

    Its `repr` shows the variables and never the value, which may be a secret.

    >>> value = expand("${env.KEY:=none}", {"KEY": "0123"}, "new").value
    >>> value == "0123", value.names, value
    (True, ('KEY',), EnvText(${env.KEY}))
    """

    __slots__ = ("failed", "grammar", "names", "null", "reference", "whole")

    names: tuple[str, ...]
    whole: bool
    reference: str
    grammar: Grammar
    null: bool
    failed: bool

    def __repr__(self) -> str:
        return f"EnvText({', '.join(f'${{env.{name}}}' for name in self.names)})"

    @property
    def shown(self) -> str:
        """The reference without its defaults: ``${env.KEY:=...}``."""
        return _without_defaults(self.reference)


@frozen
class Expanded:
    """What became of one text. `text` is what upstream's substitution yields, before any guess at types.

    `text` is `None` where the newer upstream yields a null. `names` are the variables looked up, `missing`
    those that had to be set and are not. `issues` have neither position nor path.
    """

    text: str | None
    names: tuple[str, ...]
    missing: tuple[str, ...]
    whole: bool
    reference: str
    grammar: Grammar
    issues: tuple[Issue, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the value means nothing."""
        return any(issue.level == "error" for issue in self.issues)

    @property
    def value(self) -> str:
        """The text as a value of a configuration: an `EnvText` if the environment had a part in it."""
        if not self.names and not self.failed:
            return self.reference
        value = EnvText(self.text or "")
        value.names = self.names
        value.whole = self.whole
        value.reference = self.reference
        value.grammar = self.grammar
        value.null = self.text is None
        value.failed = self.failed
        return value


def may_refer(text: str) -> bool:
    """Whether `expand` could have anything to do or to say; a cheap test for most texts.

    >>> may_refer("http://localhost"), may_refer("${env.URL}")
    (False, True)
    """
    return "$" in text or "{{" in text


def holds_env_text(value: object) -> bool:
    """Whether something in a value, at any depth, came from the environment."""
    if isinstance(value, (dict, Mapping)):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return isinstance(value, EnvText)
    return any(type(each) is not str and holds_env_text(each) for each in value)


def detect(texts: Iterable[str]) -> Literal["new", "old", "either"]:
    """Which grammar a file is written in, by the forms that it uses most; a tie is the newer one.

    `${env.X}` alone is the same in both, and bash's `${env.X:-text}` belongs to neither.

    >>> detect(["${env.A:=1}", "${env.B}"]), detect(["${env.A:1}"]), detect(["${env.A}"])
    ('new', 'old', 'either')
    """
    count: Counter[str] = Counter()
    for text in texts:
        for match in _FORMS.finditer(_closed(text)[0]):
            operator, dash = match.groups()
            if len(operator) == 2:  # noqa: PLR2004 - `:=` or `:+`
                count["new"] += 1
            elif dash != "-" or operator == "+":
                count["old"] += 1
    if not count:
        return "either"
    return "old" if count["old"] > count["new"] else "new"


def expand(text: str, environ: Mapping[str, str], grammar: Grammar) -> Expanded:
    """Replace the references in `text`, exactly as the upstream version of this grammar does.

    >>> expand("http://${env.HOST:=localhost}:80", {}, "new").text
    'http://localhost:80'
    >>> expand("${env.FLAG:+on}", {}, "new").text is None, expand("${env.FLAG+on}", {}, "old").text
    (True, '')
    >>> expand("${env.HOST}", {}, "new").missing
    ('HOST',)
    """
    names: list[str] = []
    missing: list[str] = []
    suspicious = False

    def replace(match: re.Match[str]) -> str:
        nonlocal suspicious
        name, operator, rest = match.groups()
        names.append(name)
        suspicious = suspicious or (operator == ":" and rest[:1] in {"=", "+", "-"})
        value = environ.get(name, "")
        if operator is None:
            if not value:
                missing.append(name)
            return _home(value, environ)
        if operator == "+":
            return _home(rest, environ) if value else ""
        return _home(value or rest, environ)

    pattern = _PATTERNS[grammar]
    head, tail = _closed(text)
    result = pattern.sub(replace, head) + tail
    issues: list[Issue] = []
    # Where every `$` begins a reference that was understood, there is nothing to look for.
    if suspicious or not names or text.count("$") != len(names):
        issues.extend(faults(text, grammar))
    issues.extend(_missing(name, grammar) for name in dict.fromkeys(missing))
    return Expanded(
        text=None if grammar == "new" and names and not result else result,
        names=tuple(dict.fromkeys(names)),
        missing=tuple(dict.fromkeys(missing)),
        whole=bool(names) and pattern.fullmatch(text) is not None,
        reference=text,
        grammar=grammar,
        issues=tuple(issues),
    )


def rewritten(text: str, grammar: Grammar, change: Callable[[str, str, str], str]) -> str:
    """The text with each of its references as `change(name, operator, rest)` gives it; `operator` is
    `"="` (a default), `"+"` (a condition) or empty.

    >>> rewritten("a ${env.X:=1}", "new", lambda name, operator, rest: reference(name, operator, rest, "old"))
    'a ${env.X:1}'
    """

    def replace(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        return change(name, {":": "=", None: ""}.get(operator, operator), rest or "")

    head, tail = _closed(text)
    return _PATTERNS[grammar].sub(replace, head) + tail


def reference(name: str, operator: str, rest: str, grammar: Grammar) -> str:
    """A reference as a grammar writes it.

    >>> reference("X", "=", "a", "new"), reference("X", "=", "a", "old"), reference("X", "", "", "old")
    ('${env.X:=a}', '${env.X:a}', '${env.X}')
    """
    operators = {"=": _DEFAULT, "+": _CONDITION}
    between = operators[operator][grammar] + rest if operator else ""
    return f"${{env.{name}{between}}}"


def faults(text: str, grammar: Grammar) -> list[Issue]:
    """What is wrong with the references in `text` whatever the environment holds.

    Upstream leaves all of these in the configuration as literal text, or misreads them, in silence.

    >>> print(faults("${env.api_key}", "new")[0])
    error: `${env.api_key}` is left as it is: only UPPERCASE names are read; write `${env.API_KEY}`
    """
    found = []
    position = 0
    while match := _REFERENCE.search(text, position):
        fault, position = _fault(text, match.start(), grammar)
        if fault is not None:
            found.append(fault)
    found.extend(_lookalikes(text))
    return found


def _fault(text: str, start: int, grammar: Grammar) -> tuple[Issue | None, int]:
    """What is wrong with the reference at `start`, and where to go on."""
    match = _PATTERNS[grammar].match(text, start)
    if match is not None:
        name, operator, rest = match.groups()
        return _misread(name, operator or "", rest or "", grammar), match.end()
    end = text.find("}", start)
    body = text[start + len("${env.") :] if end < 0 else text[start + len("${env.") : end]
    name_match = _NAME.match(body)
    name = name_match.group() if name_match else ""
    rest = body[len(name) :]
    upper = name.upper()
    if end < 0:
        shown = f"${{env.{name}" + ("..." if rest else "")
        return _left(shown, "its `}` is missing", f"write `${{env.{upper or 'NAME'}}}`", "env-unclosed"), len(
            text
        )
    after = end + 1
    if "${" in body:
        return _nested(name), after
    if name and name != upper:
        issue = _left(
            _shown(name, rest),
            "only UPPERCASE names are read",
            f"write `{_rewritten(upper, rest, grammar)}`",
            "env-lowercase",
        )
        return issue, after
    if name and rest.startswith((":", "+")):
        return _other_grammar(name, rest, grammar), after
    return (
        _left(
            _shown(name, rest),
            "it is not a reference",
            f"write `${{env.NAME}}` or `${{env.NAME{_DEFAULT[grammar]}default}}`",
            "env-malformed",
        ),
        after,
    )


def _misread(name: str, operator: str, rest: str, grammar: Grammar) -> Issue | None:
    """The fault of a reference that the grammar does match, but not as it was meant."""
    if "${" in rest:
        return _nested(name)
    if grammar == "old" and operator == ":" and rest.startswith(("=", "+")):
        return _other_grammar(name, operator + rest, grammar)
    if grammar == "old" and operator == ":" and rest.startswith("-") and not _NUMBER.match(rest):
        return Issue(
            f"the default of `${{env.{name}:...}}` begins with a `-`",
            hint=f"if that is bash's `:-`, write `${{env.{name}:...}}`",
            level="warning",
            code="env-bash-default",
        )
    return None


def _other_grammar(name: str, rest: str, grammar: Grammar) -> Issue:
    shown = _shown(name, rest)
    right = _rewritten(name, rest, grammar)
    if rest.startswith((":-", ":?")):
        return _left(shown, f"`{rest[:2]}` is bash's form", f"write `{right}`", "env-grammar")
    other: Grammar = "old" if grammar == "new" else "new"
    return Issue(
        f"`{shown}` is the form of {FORMS[other]}, and this file is written in the other one",
        hint=f"write `{right}`",
        code="env-grammar",
    )


def _nested(name: str) -> Issue:
    return Issue(
        f"a default cannot hold another reference (in `${{env.{name}...`)"
        if name
        else "references cannot nest",
        hint="use one variable, or a literal default",
        code="env-nested",
    )


def _lookalikes(text: str) -> Iterator[Issue]:
    for match in _MISSPELT.finditer(text):
        name = next(filter(None, match.groups()))
        yield _left(
            match.group() + ("}" if match.group().startswith("${") else ""),
            "it is not a reference",
            f"write `${{env.{name.upper()}}}`",
            "env-malformed",
        )
    whole = _SHELL.fullmatch(text)
    if whole is not None:
        name = next(filter(None, whole.groups()))
        yield Issue(
            "this looks like a shell or template variable, and is left as it is",
            hint=f"for the environment variable write `${{env.{name}}}`",
            level="warning",
            code="env-lookalike",
        )


def _missing(name: str, grammar: Grammar) -> Issue:
    return Issue(
        f"the environment variable `{name}` is not set, or empty",
        hint=f"set it, or give a default: `${{env.{name}{_DEFAULT[grammar]}default}}`",
        code="env-missing",
    )


def _left(shown: str, reason: str, hint: str, code: str, level: Level = "error") -> Issue:
    return Issue(f"`{shown}` is left as it is: {reason}", hint=hint, code=code, level=level)


def _shown(name: str, rest: str) -> str:
    """A reference for people. What follows the operator may be a secret, so it is left out."""
    operator = re.match(r":?[=+?-]|[:+]", rest)
    tail = "" if not rest else (operator.group() if operator else "") + "..."
    return f"${{env.{name}{tail}}}"


def _rewritten(name: str, rest: str, grammar: Grammar) -> str:
    """The same reference as this grammar writes it, its default left out."""
    if not rest:
        return f"${{env.{name}}}"
    operator = _CONDITION if rest.startswith(("+", ":+")) else _DEFAULT
    return f"${{env.{name}{operator[grammar]}...}}"


def _without_defaults(text: str) -> str:
    return re.sub(r"(\$\{env\.[A-Za-z0-9_]+(?>:[=+]|[:+]))[^}]+(}|$)", r"\1...\2", text)


def _closed(text: str) -> tuple[str, str]:
    """`text` up to its last `}` and the rest, where no reference can end: a search there is quadratic."""
    end = text.rfind("}") + 1
    return text[:end], text[end:]


def _home(text: str, environ: Mapping[str, str]) -> str:
    """`~` at the beginning, for the home folder of this environment rather than the process's."""
    if not text.startswith("~"):
        return text
    home = environ.get("HOME")
    if home and (text == "~" or text.startswith("~/")):
        return (home.rstrip("/") + text[1:]) or "/"
    return os.path.expanduser(text)  # noqa: PTH111 - as upstream does; pathlib raises for an unknown user
