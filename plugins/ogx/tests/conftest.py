"""The tests run against the real llama-stack and the real OGX, whichever is installed here."""

from __future__ import annotations

import pytest
from ogx_kit import REQUIRED, RUNTIMES, Upstream, installed

collect_ignore = ["conftest.py"]  # not to be read again for doctests: others have its name


@pytest.fixture(scope="session")
def upstreams() -> dict[str, Upstream]:
    """What was opened so far; an import takes seconds."""
    return {}


def opened(name: str, upstreams: dict[str, Upstream]) -> Upstream:
    if name not in upstreams:
        why = installed(name)
        if why and name == REQUIRED:
            pytest.fail(why)
        if why:
            pytest.skip(f"{why}; `tox -e {name}` runs this")
        upstreams[name] = Upstream(name)
    return upstreams[name]


@pytest.fixture(params=[REQUIRED] if REQUIRED else RUNTIMES)
def upstream(request, upstreams) -> Upstream:
    """Each of the two runtimes."""
    return opened(request.param, upstreams)


@pytest.fixture
def ogx(upstreams) -> Upstream:
    return opened("ogx", upstreams)


@pytest.fixture
def llama(upstreams) -> Upstream:
    return opened("llama-stack", upstreams)


@pytest.fixture
def llama_or_ogx(upstreams):
    """The runtime of a name."""
    return lambda name: opened(name, upstreams)
