"""Where Hugging Face's tools keep the models they downloaded."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from stackconf_models.reading import open_regular
from stackconf_models.shape import ModelUnreadable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_REVISION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")


def is_model_name(name: str) -> bool:
    """Whether a text has the form of a model's name on Hugging Face.

    >>> is_model_name("meta-llama/Llama-3.1-8B"), is_model_name("../etc"), is_model_name("a/b/c")
    (True, False, False)
    """
    return _NAME.fullmatch(name) is not None and ".." not in name


def cache_folder(environ: Mapping[str, str] | None = None) -> Path | None:
    """The folder with one `models--org--name` each; `None` where there is no home folder.

    Source: huggingface_hub `constants.py`: `HF_HUB_CACHE`, then `HF_HOME/hub`, then
    `XDG_CACHE_HOME/huggingface/hub`, then `~/.cache/huggingface/hub`.

    >>> cache_folder({"HF_HOME": "/srv/hf"}).as_posix()
    '/srv/hf/hub'
    """
    variables = os.environ if environ is None else environ
    choices = (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub"))
    for variable, below in (*choices, ("XDG_CACHE_HOME", "huggingface/hub")):
        if variables.get(variable):
            return _expanded(Path(variables[variable]) / below, variables)
    return _expanded(Path("~/.cache/huggingface/hub"), variables)


def cached_model(name: str, revision: str = "main", environ: Mapping[str, str] | None = None) -> Path | None:
    """The folder of a downloaded model's snapshot, or `None` where it is not in the cache.

    `revision` is a branch, a tag or a commit.
    """
    cache = cache_folder(environ)
    if cache is None or not is_model_name(name) or not _REVISION.fullmatch(revision):
        return None
    home = cache / ("models--" + name.replace("/", "--"))
    for commit in (_commit(home / "refs" / revision), revision):
        folder = home / "snapshots" / (commit or "")
        if commit and (folder / "config.json").is_file():
            return folder
    return None


def _commit(reference: Path) -> str | None:
    try:
        with open_regular(reference) as file:
            commit = file.read(200).decode("ascii", "replace").strip()
    except (ModelUnreadable, OSError):
        return None
    return commit if _REVISION.fullmatch(commit) else None


def _expanded(path: Path, variables: Mapping[str, str]) -> Path | None:
    if path.parts[:1] != ("~",):
        return path
    home = variables.get("HOME")
    try:
        return (Path(home) if home else Path.home()).joinpath(*path.parts[1:])
    except RuntimeError:
        return None
