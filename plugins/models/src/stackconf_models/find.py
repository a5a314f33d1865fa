"""Find a model's shape by what a configuration calls it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stackconf import Because, because
from stackconf_models.cache import cache_folder, cached_model, is_model_name
from stackconf_models.folder import read_folder
from stackconf_models.gguf import read_gguf
from stackconf_models.known import known_model, nearest_model
from stackconf_models.shape import ModelShape, ModelUnreadable


def find_model(
    model: str, *, revision: str = "main", environ: Mapping[str, str] | None = None
) -> Because[ModelShape | None]:
    """The shape of a model that is named by a path, or by its name on Hugging Face.

    A folder with a `config.json`, a `.gguf` file, a model in Hugging Face's cache, or a well-known
    model, in this order; nothing is downloaded. The value is `None` where it is in none of them or
    its files are bad; the reason then says what to do. Never raises for a bad file.

    >>> find_model("meta-llama/Llama-3.2-1B", environ={"HF_HOME": "/nowhere"}).reason
    'Llama-3.2-1B: 16 layers, 8 KV heads of 64, from config.json of meta-llama/Llama-3.2-1B'
    >>> found = find_model("acme/unheard-of", environ={"HF_HOME": "/nowhere"})
    >>> found.value is None, found.reason
    (True, 'the shape of acme/unheard-of is unknown: it is not in /nowhere/hub, and no well-known model; \
download it, or name a folder or a .gguf file')
    """
    try:
        shape = _read(model.strip(), revision, environ)
    except ModelUnreadable as error:
        return because(None, str(error))
    if shape is not None:
        return because(shape, _told(shape))
    where = f"it is not in {cache_folder(environ)}, and no well-known model"
    near = nearest_model(model)
    advice = f"did you mean {near}?" if near else "download it, or name a folder or a .gguf file"
    return because(None, f"the shape of {model[:200]} is unknown: {where}; {advice}")


def _read(model: str, revision: str, environ: Mapping[str, str] | None) -> ModelShape | None:
    try:
        path = Path(model).expanduser()
        if model.lower().endswith(".gguf") and (path.exists() or not is_model_name(model)):
            return read_gguf(path)
        if path.is_dir():
            return read_folder(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelUnreadable(f"{model[:200]!r}: {str(error)[:200]}") from None
    if path.is_absolute() or model.startswith((".", "~")):
        raise ModelUnreadable(f"{model[:200]}: there is no such folder")
    folder = cached_model(model, revision, environ)
    return known_model(model) if folder is None else read_folder(folder, model)


def _told(shape: ModelShape) -> str:
    name = shape.name.rpartition("/")[2]
    return f"{name}: {shape.layers} layers, {_heads(shape)}, from {shape.source}"


def _heads(shape: ModelShape) -> str:
    if shape.kv_heads is None or shape.head_dim is None:
        return "KV heads unknown"
    return f"{shape.kv_heads} KV heads of {shape.head_dim}"
