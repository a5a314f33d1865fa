"""Faiss with a provider's settings, in this process.

OpenMP keeps the number of threads per *calling thread*: `faiss.omp_set_num_threads` in one thread
does not reach another (tried with faiss 1.15.1, which brings its own libgomp and an OpenBLAS that
follows it). So the settings are kept here, and every call sets the number in the thread it runs in
and puts it back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from attrs import evolve, frozen

from stackconf import Holder, StackconfError

_FLOAT32_BYTES = 4
# OpenMP's own choice, taken before the first change.
_OWN_THREADS: list[int] = []


class IndexTooLarge(StackconfError):
    """An add would take an index beyond `max_index_bytes`."""


@frozen
class Engine:
    """The settings of one provider, and the two calls they govern.

    Vectors and queries are numpy arrays of float32, one row each; `index` is a faiss index of the
    same dimension.
    """

    num_threads: int | None
    add_batch_size: int
    search_batch_size: int
    max_index_bytes: int | None

    def add(self, index: Any, vectors: Any) -> None:
        """Add vectors in batches. Raises `IndexTooLarge` before anything is added."""
        count, dimension = vectors.shape
        size = (index.ntotal + count) * dimension * _FLOAT32_BYTES
        if self.max_index_bytes is not None and size > self.max_index_bytes:
            raise IndexTooLarge(
                f"{index.ntotal} + {count} vectors of {dimension} dimensions take {size} bytes, more than "
                f"max_index_bytes = {self.max_index_bytes}; delete some, or raise it"
            )
        with self._threads():
            for start in range(0, count, self.add_batch_size):
                index.add(vectors[start : start + self.add_batch_size])

    def search(self, index: Any, queries: Any, k: int) -> tuple[Any, Any]:
        """Distances and positions of the `k` nearest vectors of each query, searched in batches."""
        numpy: Any = import_module("numpy")
        distances = numpy.empty((len(queries), k), dtype="float32")
        positions = numpy.empty((len(queries), k), dtype="int64")
        with self._threads():
            for start in range(0, len(queries), self.search_batch_size):
                rows = slice(start, start + self.search_batch_size)
                distances[rows], positions[rows] = index.search(queries[rows], k)
        return distances, positions

    @contextmanager
    def _threads(self) -> Iterator[None]:
        before = threads()
        set_threads(self.num_threads or before)
        try:
            yield
        finally:
            set_threads(before)


def engine(provider_key: str) -> Engine | None:
    """The engine applied in this process for `vector_io/faiss` (or another provider id), if any."""
    return held.current(provider_key)


def _install(_: str, new: Engine | None) -> None:
    """Give the calling thread the engine's number of threads, or the one OpenMP chose itself."""
    if not _OWN_THREADS:
        _OWN_THREADS.append(threads())
    set_threads((new.num_threads if new else None) or _OWN_THREADS[0])


held: Holder[Engine] = Holder(install=_install)
"""The engine of each provider of this process."""


def load_faiss() -> Any:
    """The faiss module. Raises `StackconfError` where it cannot be imported."""
    try:
        return import_module("faiss")
    except ImportError as error:
        raise StackconfError(f"faiss cannot be imported: {error}; install faiss-cpu") from None


def threads() -> int:
    """OpenMP threads that faiss would use in the calling thread."""
    return int(load_faiss().omp_get_max_threads())


def set_threads(number: int) -> None:
    """Set the OpenMP threads that faiss uses in the calling thread."""
    load_faiss().omp_set_num_threads(number)


def wrong_with(subject: Engine) -> str | None:
    """Build a small index with `subject`, and search it; what went wrong, or `None`."""
    faiss = load_faiss()
    numpy: Any = import_module("numpy")
    vectors = numpy.arange(64 * 8, dtype="float32").reshape(64, 8)
    unbounded = evolve(subject, max_index_bytes=None)
    index = faiss.IndexFlatL2(8)
    unbounded.add(index, vectors)
    distances, positions = unbounded.search(index, vectors, 1)
    if distances.any() or (positions[:, 0] != numpy.arange(64)).any():
        return "faiss does not find vectors that were just added"
    return None
