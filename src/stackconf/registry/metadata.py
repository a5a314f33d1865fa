"""What is installed, read from entry-point metadata alone: no plugin is imported here."""

from __future__ import annotations

import os
import sys
from configparser import ConfigParser
from configparser import Error as ParserError
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve, frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from importlib.metadata import Distribution

PROVIDERS = "stackconf.providers"
PLUGINS = "stackconf.plugins"
RUNTIMES = "stackconf.runtimes"
CONFIGURATIONS = "stackconf.configurations"
GROUPS = (PROVIDERS, PLUGINS, RUNTIMES, CONFIGURATIONS)

CORE = "stackconf"
_MARK = "[stackconf."
_SUFFIXES = (".dist-info", ".egg-info")
_Found: TypeAlias = tuple[str, str, str]
"""A distribution's entry points as they stand in the file, its name and its version."""


@frozen
class Advertised:
    """One entry point that a distribution (or a `--plugin` file) offers to stackconf.

    `target` is `"package.module"`, `"package.module:attribute"` or the path of a Python file.
    """

    group: str
    name: str
    target: str
    distribution: str = ""
    version: str = ""
    enabled: bool = True

    @property
    def builtin(self) -> bool:
        """Whether it comes with stackconf itself."""
        return self.distribution == CORE

    def __str__(self) -> str:
        owner = f"{self.distribution} {self.version}".strip()
        return f"`{self.name}`" + (f" of {owner}" if owner else "")


def installed() -> list[Advertised]:
    """Every stackconf entry point of this environment, sorted by group, name and distribution.

    One pass over the distributions; only those that mention a stackconf group are read further.
    A distribution that is found twice on `sys.path` counts once, the first.
    """
    found: list[Advertised] = []
    seen: set[str] = set()
    for text, name, version in _distributions():
        if name.lower() not in seen:
            seen.add(name.lower())
            found.extend(_entries(text, name, version))
    return sorted(found, key=lambda entry: (entry.group, entry.name, entry.distribution))


def _distributions() -> Iterable[_Found]:
    plain = _in_folders()
    return _as_importlib_finds() if plain is None else plain


def _in_folders() -> list[_Found] | None:
    """What `importlib.metadata` would find, without its price (it takes longer to load than all of this),
    where every distribution is a folder on `sys.path`; `None` where one may be in an archive or is found
    by somebody's own finder.
    """
    finders = [each for each in sys.meta_path if hasattr(each, "find_distributions")]
    if any(each is not PathFinder for each in finders):
        return None
    found: list[_Found] = []
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - hundreds of names, as text
        except (FileNotFoundError, PermissionError):
            continue
        except OSError:
            return None
        if folder.lower().endswith(".egg"):
            return None
        for name in names:
            if name.lower().endswith(_SUFFIXES):
                found += _read(os.path.join(folder, name))  # noqa: PTH118
    return found


def _read(folder: str) -> Iterator[_Found]:
    text = _text(folder, "entry_points.txt")
    if text is None or _MARK not in text:
        return
    about = _text(folder, "METADATA") or _text(folder, "PKG-INFO") or ""
    headers: dict[str, str] = {}
    for line in about.splitlines():
        key, colon, value = line.partition(":")
        if not colon:
            break  # the description begins
        headers.setdefault(key.lower(), value.strip())
    yield text, headers.get("name", ""), headers.get("version", "")


def _text(folder: str, name: str) -> str | None:
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:  # noqa: PTH118, PTH123
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def _as_importlib_finds() -> Iterator[_Found]:
    from importlib.metadata import distributions

    for distribution in distributions():
        text = _entry_points_text(distribution)
        if text is not None and _MARK in text:
            yield text, distribution.metadata["Name"] or "", distribution.version or ""


def _entry_points_text(distribution: Distribution) -> str | None:
    try:
        return distribution.read_text("entry_points.txt")
    except (OSError, UnicodeDecodeError):
        return None


def _entries(text: str, distribution: str, version: str) -> Iterator[Advertised]:
    parser = ConfigParser(delimiters=("=",), strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names are case sensitive
    try:
        parser.read_string(text)
    except ParserError:
        return  # no installer wrote that; it must not hide every other plugin
    for group in GROUPS:
        if parser.has_section(group):
            for name, target in parser.items(group):
                yield Advertised(group, name, target.split("[")[0].strip(), distribution, version)


def marked(entries: Iterable[Advertised], disabled: Collection[str]) -> list[Advertised]:
    """The same entries, each enabled unless its name or its distribution is in `disabled`."""
    return [
        evolve(entry, enabled=not ({entry.name, entry.distribution} & set(disabled))) for entry in entries
    ]


class DisabledPlugins:
    """The names of disabled plugins: a text file of one name a line, plus an environment variable.

    A name is a distribution's (`stackconf-ollama`), a plugin's (`nvidia`) or a type's
    (`inference/remote::ollama`). The file is `STACKCONF_CONFIG_HOME/disabled-plugins`, by default
    in the user's configuration folder; `STACKCONF_DISABLED_PLUGINS` adds names, comma separated.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or config_home() / "disabled-plugins"

    def names(self) -> frozenset[str]:
        """Every disabled name, from the file and the environment."""
        variable = os.environ.get("STACKCONF_DISABLED_PLUGINS", "")
        return self.stored() | {name.strip() for name in variable.split(",") if name.strip()}

    def stored(self) -> frozenset[str]:
        """The names in the file; none where there is no file."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return frozenset()
        return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))

    def write(self, names: Collection[str]) -> None:
        """Replace the file, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        draft.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")
        draft.replace(self.path)


def config_home() -> Path:
    """The folder of stackconf's own settings for this user."""
    own = os.environ.get("STACKCONF_CONFIG_HOME")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "stackconf"
