"""What depends on the build of llama.cpp, by its number: `b11434`.

A number here is one at which the behaviour was seen, with the source; an older build may have it too.
Where the build is not given, what is written means the same to every build.
"""

from __future__ import annotations

import re

SHARED_SLOTS = 7079
"""By default four slots that share one cache, each with the whole context, and flash attention where the
device can. Source: https://github.com/ggml-org/llama.cpp/issues/17300, which is about b7079;
https://github.com/ggml-org/llama.cpp/pull/16736."""
LOAD_MODE = 10114
"""`--load-mode` in place of `--mlock` and `--no-mmap`. Source:
https://github.com/ggml-org/llama.cpp/issues/26110, which is about b10114."""
OUTPUT_FIRST = 11434
"""The last of `--n-gpu-layers` is the output layer. Source: `load_tensors` in `src/llama-model.cpp` of
b11434, `i_gpu_start = n_layer + 1 - n_gpu_layers`. Before, the output came last: of n layers, n were
repeating ones."""


def build_number(text: str | None) -> int | None:
    """The number of a build, however it is written; `None` for none.

    >>> [build_number(text) for text in ("b11434", "11434", "b11434-0f3c1d2", "0.6.0", None)]
    [11434, 11434, 11434, None, None]
    """
    match = re.fullmatch(r"b?(\d{3,6})(?:[-.][0-9A-Za-z.-]{1,40})?", (text or "").strip())
    return None if match is None else int(match[1])


def at_least(build: int | None, wanted: int) -> bool:
    """Whether the build is known, and this or a later one."""
    return build is not None and build >= wanted
