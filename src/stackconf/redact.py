"""Secrets never reach an output: which names hold one, and what is shown instead.

A field is secret when its class says so (`SecretStr`, `SecretBytes`, the `secret` label). Where a
class says nothing, and in free mappings, the *name* decides, by whole words, so that `api_key` is
redacted and `tokenizer`, `max_tokens` and `key_prefix` are not. Text that is a URL loses its
password and secret query parameters wherever it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

REDACTED = "********"
"""What is shown for a secret that is set. Sent back in an overlay, it means "keep what is there"."""

_LAST_WORDS = frozenset(
    {
        "apikey",
        "apikeys",
        "authorization",
        "cookie",
        "credential",
        "credentials",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pwd",
        "secret",
        "secrets",
        "token",
    }
)
_KEYS = frozenset({"access", "api", "private", "secret"})
_TOKENS = frozenset({"access", "api", "auth", "bearer", "hf", "refresh"})
_LAST_PAIRS = frozenset(
    {("connection", "string")}
    | {(word, noun) for word in _KEYS for noun in ("key", "keys")}
    | {(word, "tokens") for word in _TOKENS}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# A password with `/`, `?` or `#` in it is no URL, but drivers take it; `host:80/path@x` is not one.
_USERINFO = re.compile(
    r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@?#]*:)"
    r"(?P<password>[^\s/?#]+(?=@)|(?!\d{0,5}[/?#])[^\s@]+(?=@))"
)
_QUERY = re.compile(r"(?P<head>(?:^|[?&;\s])(?P<name>[A-Za-z0-9_.-]+)=)(?P<value>[^&;#\s]+)")
_MAY_HIDE = re.compile(r"://|=")
_LONG_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"[A-Za-z]")
_SHORTEST_SCRUBBED = 4
_SHORTEST_ENCODED = 8
"""Shorter ones have too little in base64 that is theirs alone, and shorter words are no secrets."""
_BASE64 = "[A-Za-z0-9+/_-]"
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~")
_QUERY_NAMES = frozenset({"auth", "key", "sig", "signature"})


def names_secret(name: str) -> bool:
    """Whether a field of this name holds a secret, judged by its last words.

    >>> [name for name in ("api_key", "openaiApiKey", "hf-token", "tokenizer", "max_tokens",
    ...                    "db_password", "aws_access_key_id") if names_secret(name)]
    ['api_key', 'openaiApiKey', 'hf-token', 'db_password', 'aws_access_key_id']
    """
    words = [word.lower() for word in _WORD.findall(name)]
    if words[-1:] == ["id"] and len(words) > 2:  # noqa: PLR2004 (aws_access_key_id, not token_id)
        words.pop()
        return tuple(words[-2:]) in _LAST_PAIRS
    return bool(words) and (words[-1] in _LAST_WORDS or tuple(words[-2:]) in _LAST_PAIRS)


def redact_text(text: str) -> str:
    """The text without URL passwords and without secret query parameters.

    >>> redact_text("postgresql://me:hunter2@db/x?sslmode=require&api_key=abc")
    'postgresql://me:********@db/x?sslmode=require&api_key=********'
    >>> redact_text("host=db password=hunter2 dbname=x")
    'host=db password=******** dbname=x'
    """
    return replaced_passwords(text, lambda _: REDACTED)


def replaced_passwords(text: str, instead: Callable[[str], str]) -> str:
    """The text with something instead of each part that `redact_text` hides.

    >>> replaced_passwords("postgresql://me:hunter2@db/x?api_key=abc", str.upper)
    'postgresql://me:HUNTER2@db/x?api_key=ABC'
    """
    if not _MAY_HIDE.search(text):
        return text

    def parameter(match: re.Match[str]) -> str:
        return match["head"] + instead(match["value"]) if _is_secret_parameter(match["name"]) else match[0]

    return _QUERY.sub(
        parameter, _USERINFO.sub(lambda match: match["head"] + instead(match["password"]), text)
    )


def passwords_in(text: str) -> list[str]:
    """The parts of a text that `redact_text` hides.

    >>> passwords_in("postgresql://me:hunter2@db/x?api_key=abc")
    ['hunter2', 'abc']
    """
    if not _MAY_HIDE.search(text):
        return []
    found = [match["password"] for match in _USERINFO.finditer(text)]
    return found + [match["value"] for match in _QUERY.finditer(text) if _is_secret_parameter(match["name"])]


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """The text with every one of these secrets, and every URL password, hidden; also where it stands
    escaped as in JSON or a repr, quoted as in a URL, in base64 with whatever before and after it, or
    with its lines joined.

    Very short secrets are left: hiding them would garble the text and show where they are.

    >>> scrubbed("the key sk-1234 was refused", ["sk-1234"])
    'the key ******** was refused'
    >>> import base64
    >>> scrubbed(f"Basic {base64.b64encode(b'me:sk-12345678').decode()}", ["sk-12345678"])
    'Basic ********'
    """
    found = {spelling for secret in secrets for spelling in _spellings(secret)}
    for each in sorted(found, key=len, reverse=True):
        text = text.replace(each, REDACTED)
    for core in {core for secret in secrets for core in _base64(secret)}:
        if core in text:
            text = re.sub(f"{_BASE64}*{re.escape(core)}{_BASE64}*={{0,2}}", REDACTED, text)
    return redact_text(text)


def _spellings(secret: str) -> Iterator[str]:
    """Every way in which other people's code might write a secret."""
    words = (word for word in secret.split() if len(word) >= _SHORTEST_ENCODED)
    for part in dict.fromkeys([secret, *words]):  # `Bearer …`, or the lines of a key
        written = {part, repr(part)[1:-1], json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]}
        written |= {_percent(part, ""), _percent(part, "/"), _percent(part, " ").replace(" ", "+")}
        written.add(_percent(part, "/ ").replace(" ", "+"))
        written |= {" ".join(each.split()) for each in written}
        yield from (each for each in written if len(each) >= _SHORTEST_SCRUBBED)


def _percent(text: str, safe: str) -> str:
    """Text quoted for a URL."""
    kept = _UNRESERVED | set(safe)
    return "".join(
        each if each in kept else "".join(f"%{byte:02X}" for byte in each.encode("utf-8", "replace"))
        for each in text
    )


def _base64(text: str) -> Iterator[str]:
    """What of a text's base64 does not depend on what stands beside it, for each way it may be aligned."""
    from base64 import b64encode, urlsafe_b64encode

    data = text.encode("utf-8", "replace")
    for shift in range(3) if len(data) >= _SHORTEST_ENCODED else ():
        whole = (shift + len(data)) // 3 * 4  # the last, incomplete group depends on what follows
        for encode in (b64encode, urlsafe_b64encode):
            yield encode(bytes(shift) + data).decode("ascii")[4 if shift else 0 : whole]


def described(error: BaseException, secrets: Collection[str] = ()) -> str:
    """What someone else's code raised, in one line: `raised ValueError: no`. Never raises itself."""
    try:
        text = redact_text(" ".join(retold(error, secrets).split()))
    except Exception:  # noqa: BLE001 (an exception that cannot even say what it is)
        text = "(its text cannot be read)"
    return f"raised {type(error).__name__}" + (f": {text}" if text else "")


def retold(error: BaseException, secrets: Collection[str]) -> str:
    """The text of an error without these secrets.

    Where it quotes what caused it, they are looked for in the words of that: what `described` hides
    by its looks may be the half of a secret, of which the other half would stay.

    >>> retold(ValueError("no access with token=abcd1234;efgh"), ["abcd1234;efgh"])
    'no access with token=********'
    """
    text = str(error)
    if not secrets:
        return text
    if error.__cause__ is not None:
        quoted, instead = described(error.__cause__), described(error.__cause__, secrets)
        text = text.replace(quoted.removeprefix("raised "), instead.removeprefix("raised "))
    return scrubbed(text, secrets)


def looks_like_key(text: str) -> bool:
    """Whether a text looks like an API key, wherever it stands: a long run of letters and digits.

    >>> [looks_like_key(text) for text in ("sk-proj-4fQ9xK4T9wqZbN2vR8", "Llama-3.2-3B-Instruct", "8 GiB")]
    [True, False, False]
    """
    return any(_DIGIT.search(run) and _LETTER.search(run) for run in _LONG_RUN.findall(text))


def is_redacted(value: object) -> bool:
    """Whether a value is what an output showed in place of a secret.

    >>> is_redacted("********"), is_redacted("postgres://me:********@db/x"), is_redacted("")
    (True, True, False)
    """
    if not isinstance(value, str):
        return False
    return REDACTED in value


def redact_free(value: object, name: str = "") -> object:
    """A copy of plain data with secrets redacted by name; for values that no class describes.

    >>> redact_free({"headers": {"api_key": "abc", "n": 1}, "args": ["--token", "abc"]})
    {'headers': {'api_key': '********', 'n': 1}, 'args': ['--token', '********']}
    """
    if isinstance(value, Mapping):
        above = name if names_secret(name) else ""
        return {key: redact_free(inner, above or str(key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return _redacted_list(value, name)
    if value is not None and value != "" and names_secret(name) and not isinstance(value, bool):
        return REDACTED
    return redact_text(value) if isinstance(value, str) else value


def _redacted_list(items: list[object] | tuple[object, ...], name: str) -> list[object]:
    shown: list[object] = []
    option = ""
    for item in items:
        shown.append(redact_free(item, option or name))
        option = item.lstrip("-") if isinstance(item, str) and item.startswith("-") else ""
    return shown


def _is_secret_parameter(name: str) -> bool:
    return name.lower() in _QUERY_NAMES or names_secret(name)
