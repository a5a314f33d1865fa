"""Files that a provider needs: made when missing, taken back only if nobody used them since."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from stackconf import StackconfError


class StoreUnusable(StackconfError):
    """A store cannot be used as configured. One line: which, why."""


@frozen
class Place:
    """A file's path, and what `claim` made for it: folders from the outermost in, the file."""

    path: Path
    made_folders: tuple[Path, ...] = ()
    made_file: bool = False

    def give_back(self) -> None:
        """Remove what was made, as far as it is still empty; anything else stays."""
        if self.made_file and self.path.is_file() and self.path.stat().st_size == 0:
            self.path.unlink()
        for folder in reversed(self.made_folders):
            try:
                folder.rmdir()
            except OSError:
                return


def expanded(db_path: str) -> Path:
    """The absolute path of a configured file, `~` expanded.

    Raises `StoreUnusable` where there is no home folder to put in its place.

    >>> expanded("/srv/stores/../kv.db").as_posix()
    '/srv/stores/../kv.db'
    """
    try:
        return Path(db_path).expanduser().absolute()
    except RuntimeError as error:
        raise StoreUnusable(f"{db_path}: {error}") from None


def existing_database(path: Path) -> str:
    """The address under which SQLite opens a file and never makes it; `path` is absolute.

    For `sqlite3.connect(address, uri=True)`: a file that vanished is missed, not made again.

    >>> existing_database(Path("/srv/a store.db"))
    'file:///srv/a%20store.db?mode=rw'
    """
    return f"{path.as_uri()}?mode=rw"


def claim(path: Path) -> Place:
    """Make sure that `path` is a file, with its folders made as needed.

    Raises `StoreUnusable` where that is not possible, after removing what it made.
    """
    made: list[Path] = []
    try:
        for folder in _missing(path.parent):
            folder.mkdir(exist_ok=True)
            made.append(folder)
        made_file = _make_file(path)
    except OSError as error:
        Place(path, tuple(made)).give_back()
        raise StoreUnusable(f"cannot make {path}: {_why(error, path)}") from None
    if not path.is_file():
        raise StoreUnusable(f"{path} is not a file")
    return Place(path, tuple(made), made_file)


def _missing(folder: Path) -> list[Path]:
    """The folders to make for `folder` to exist, outermost first."""
    missing: list[Path] = []
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    return missing[::-1]


def _make_file(path: Path) -> bool:
    try:
        with path.open("xb"):
            return True
    except FileExistsError:
        return False


def _why(error: OSError, path: Path) -> str:
    culprit = "" if error.filename in {None, str(path)} else f" ({error.filename})"
    return f"{error.strerror or error}{culprit}"
