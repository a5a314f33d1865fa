"""sentence-transformers with a provider's settings, in this process.

PyTorch and sentence-transformers take seconds and a gigabyte to import; only an apply that has something
to load imports them. PyTorch's number of threads is that of the *calling thread* (OpenMP's), so every
call sets it in the thread that it runs in and puts it back.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from stackconf import Applied, Holder, StackconfError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stackconf_sentence_transformers.config import SentenceTransformersConfig

INSTALL = "pip install 'stackconf-sentence-transformers[engine]'"
MISSING = f"sentence-transformers is not installed; {INSTALL}, then apply again"


@frozen(eq=False)
class Loaded:
    """A model in memory. Several engines may have it, one after the other."""

    model: Any = field(repr=False)
    what: tuple[object, ...]
    """What it was loaded from, and how: the same again need not be loaded again."""
    own_length: int | None
    own_prompts: dict[str, str]
    lock: Lock = field(factory=Lock, repr=False)


@define(eq=False)
class Engine:
    """One provider's model with its settings; `encode` may be called from any thread."""

    config: SentenceTransformersConfig
    loaded: Loaded | None
    _pool: Any = field(default=None, init=False, repr=False)

    def encode(self, texts: Sequence[str], *, prompt_name: str | None = None) -> Any:
        """The embeddings of `texts`, a numpy array of float32 with one row each.

        `prompt_name` is one of the prompts, such as `query`; without it the default one is used. Raises
        `StackconfError` where no model is set, or there is no such prompt.
        """
        if self.loaded is None:
            raise StackconfError("no model is set for this provider; set model")
        config, model = self.config, self.loaded.model
        prompts = {**self.loaded.own_prompts, **(config.prompts or {})}
        name = prompt_name or config.default_prompt_name
        if name is not None and name not in prompts:
            raise StackconfError(f"there is no prompt `{name}`; use {' or '.join(sorted(prompts)) or 'none'}")
        with self.loaded.lock, _threads(config.threads):
            model.max_seq_length = config.max_seq_length or self.loaded.own_length
            options: dict[str, object] = {
                "batch_size": config.batch_size or 32,
                "show_progress_bar": False,
                "normalize_embeddings": bool(config.normalize_embeddings),
                "truncate_dim": config.truncate_dim,
            }
            if name is not None:
                options["prompt"] = prompts[name]
            if self._shared(len(texts)):
                options["pool"] = self._started(model)
            vectors = model.encode(list(texts), **options)
        return vectors.astype("float32", copy=False)

    def close(self) -> None:
        """Stop the processes that were started for large requests."""
        pool, self._pool = self._pool, None
        if pool is not None and self.loaded is not None:
            self.loaded.model.stop_multi_process_pool(pool)

    def _shared(self, texts: int) -> bool:
        """Whether a request is worth dividing: a batch for each process at least."""
        processes = self.config.processes or 1
        return processes > 1 and texts >= processes * (self.config.batch_size or 32)

    def _started(self, model: Any) -> Any:
        if self._pool is None:
            self._pool = model.start_multi_process_pool(targets(self.config))
        return self._pool


def targets(config: SentenceTransformersConfig) -> list[str]:
    """The device of each process: its own card where there are enough, in turns otherwise.

    >>> from stackconf_sentence_transformers.config import SentenceTransformersConfig
    >>> cards = [{"device": "cuda:0"}, {"device": "cuda:1"}, {"device": "cpu"}]
    >>> targets(SentenceTransformersConfig(devices=cards, device="cuda:1", processes=2))
    ['cuda:1', 'cuda:0']
    """
    first = config.device or "cpu"
    kind = first.partition(":")[0]
    others = [place.device for place in config.places or () if place.kind == kind and place.device != first]
    places = [first, *others]
    return [places[number % len(places)] for number in range(config.processes or 1)]


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    torch = import_module("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def engine(provider_key: str) -> Engine | None:
    """The engine applied in this process for `inference/sentence-transformers` (or another id), if any."""
    return held.current(provider_key)


held: Holder[Engine] = Holder(close=Engine.close)
"""The engine of each provider of this process."""


def change(key: str, config: SentenceTransformersConfig) -> Applied:
    """Load what is set, prove it with a text, and put it in force.

    Pending where sentence-transformers or the model is not on this machine. Raises `StackconfError` where
    the device is not there, or the model cannot be loaded or computed.
    """
    if find_spec("sentence_transformers") is None or find_spec("torch") is None:
        return Applied(pending=MISSING)
    if config.source is None:
        told = "no model is set, so none is loaded"
        return held.swap(key, Engine(config, None)).applied(told)
    lacking = _not_here(config)
    if lacking is not None:
        return Applied(pending=lacking)
    torch = import_module("torch")
    missing = _no_device(torch, config)
    if missing is not None:
        raise StackconfError(missing)
    before = held.current(key)
    what = _what(config)
    same = before is not None and before.loaded is not None and before.loaded.what == what
    loaded = before.loaded if same and before is not None else _load(torch, config, what)
    new = Engine(config, loaded)
    wrong = _wrong_with(new)
    if wrong is not None:
        raise StackconfError(wrong)
    detail = f"{config.source} on {config.device or 'its own device'}, {config.batch_size} texts at once"
    done = "still loaded" if same else "loaded"
    return held.swap(key, new, check=lambda: _wrong_with(new)).applied(f"{done}: {detail}")


def leave(key: str) -> Applied:
    """Let go of the model."""
    return held.swap(key, None).applied("no model in this process any more; its files are kept")


def _what(config: SentenceTransformersConfig) -> tuple[object, ...]:
    return (config.source, config.device, config.dtype, config.trust_remote_code)


def _not_here(config: SentenceTransformersConfig) -> str | None:
    if config.model_path is not None or config.download or config.model is None:
        return None
    from stackconf_models import cached_model
    from stackconf_sentence_transformers.models import ORGANISATION

    if any(cached_model(name) is not None for name in (config.model, f"{ORGANISATION}/{config.model}")):
        return None
    return (
        f"{config.model} is not on this machine; `hf download {config.model}`, or let apply do it with "
        "download: true"
    )


def _no_device(torch: Any, config: SentenceTransformersConfig) -> str | None:
    """Why PyTorch cannot compute where it is to."""
    kind, _, number = (config.device or "cpu").partition(":")
    if kind == "cpu":
        return None
    backend = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    if backend is None or not backend.is_available():
        advice = f"install a PyTorch for it, or set device: cpu (PyTorch {torch.__version__})"
        return f"this PyTorch has no {kind} device; {advice}"
    count = 1 if kind == "mps" else backend.device_count()
    if number and int(number) >= count:
        return (
            f"PyTorch has {count} {kind} device{'s' * (count != 1)} and no {config.device}; set another one"
        )
    return None


def _load(torch: Any, config: SentenceTransformersConfig, what: tuple[object, ...]) -> Loaded:
    library = import_module("sentence_transformers")
    dtype = {"auto": "auto", None: None}.get(config.dtype, getattr(torch, config.dtype or "", None))
    options = {} if dtype is None else {"model_kwargs": {"torch_dtype": dtype}}
    if config.model_path is not None and not Path(config.model_path).is_dir():
        raise StackconfError(f"{config.model_path}: there is no such folder")
    try:
        model = library.SentenceTransformer(
            config.source,
            device=config.device,
            trust_remote_code=config.trust_remote_code,
            local_files_only=not config.download,
            **options,
        )
    except Exception as error:  # noqa: BLE001 (whatever a model's files make it raise)
        raise StackconfError(f"{config.source} cannot be loaded: {_line(error)}") from None
    return Loaded(model, what, model.max_seq_length, dict(model.prompts or {}))


def _wrong_with(subject: Engine) -> str | None:
    """Embed a text; what went wrong, or `None`."""
    try:
        (vector,) = subject.encode(["What is embedded to see whether it works"])
    except StackconfError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 (out of memory, a bad kernel, broken weights)
        return f"{subject.config.source} cannot be computed: {_line(error)}"
    numpy = import_module("numpy")
    if not numpy.isfinite(vector).all():
        return f"{subject.config.source} gives values that are no numbers; try dtype: float32"
    return None


def _line(error: Exception) -> str:
    text = ""
    with suppress(Exception):
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__
