"""What is asked for most is rendered once per state of the stack, and never told from an older one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_kit import PLUGIN, STACK

import stackconf.server.hosted as module
from stackconf import Stack
from stackconf.registry.registry import Registry
from stackconf.server.app import create_app
from stackconf.server.hosted import Hosted
from stackconf.testing import machine

READS = ("/v1/inspect/configurations", "/v1/inspect/effective", "/v1/configurations", "/v1/providers")


@pytest.fixture
def hosted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosted]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stack.yaml").write_text(STACK, encoding="utf-8")
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    registry = Registry(files=["plugin.py"], entry_points=False)
    hosted = Hosted(
        lambda store: Stack.open("stack.yaml", store=store, registry=registry, hardware=machine())
    )
    with hosted.hosting("here"):
        yield hosted
    hosted.close()


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The revision of every body that is rendered to be kept."""
    found: list[int] = []
    real = module.rendered

    def counted(data: object, revision: int) -> module.Rendered:
        found.append(revision)
        return real(data, revision)

    monkeypatch.setattr(module, "rendered", counted)
    return found


def ask(hosted: Hosted, *paths: str) -> list[httpx.Response]:
    """Ask for all of it at once."""

    async def all_at_once() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(hosted))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return list(await asyncio.gather(*map(http.get, paths)))

    return asyncio.run(all_at_once())


def register(hosted: Hosted, **config: Any) -> None:
    """Register for the provider."""
    with hosted.stack() as stack:
        stack.configurations.register({"inference": [{"provider_id": "one", "config": config}]})


def test_a_revision_is_rendered_once_however_many_ask(hosted: Hosted, renders: list[int]) -> None:
    for revision in range(3):
        answers = ask(hosted, *READS * 50)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == len(READS)
        assert renders == [each for each in range(revision + 1) for _ in READS]
        register(hosted, threads=revision + 2)


def test_an_apply_and_a_reload_render_anew_once(hosted: Hosted, renders: list[int]) -> None:
    ask(hosted, *READS)
    hosted.apply(actor="test").report()
    ask(hosted, *READS * 5)
    assert len(renders) == 2 * len(READS)
    Path("stack.yaml").write_text(STACK.replace("http://one", "http://two"), encoding="utf-8")
    hosted.reload()
    [answer, *_] = ask(hosted, *READS * 5)
    assert len(renders) == 3 * len(READS)
    assert answer.json()["providers"]["inference"][0]["config"]["url"] == "http://two"


def test_what_another_connection_writes_is_told_at_once(hosted: Hosted) -> None:
    [before] = ask(hosted, READS[0])
    with Stack.open("stack.yaml", registry=Registry(files=["plugin.py"], entry_points=False)) as other:
        other.configurations.register({"inference": [{"provider_id": "one", "config": {"threads": 9}}]})
    [after] = ask(hosted, READS[0])
    assert after.json()["providers"]["inference"][0]["config"]["threads"] == 9
    assert before.headers["etag"].startswith('"0-')
    assert after.headers["etag"].startswith('"1-')


def test_a_file_that_is_referred_to_is_looked_at_with_every_read(hosted: Hosted, renders: list[int]) -> None:
    secret = Path("token").absolute()
    secret.write_text("first-token")
    register(hosted, token=f"${{file:{secret}}}")
    hosted.apply(actor="test").report()
    ask(hosted, *READS * 3)
    assert len(renders) == len(READS)
    secret.write_text("other-token!")
    ask(hosted, *READS * 3)
    assert len(renders) == 2 * len(READS)
    [plan] = ask(hosted, "/v1/plan")
    assert [each["kind"] for each in plan.json()["changes"]] == ["change"]
    assert "token" in plan.text
    assert "other-token" not in plan.text
