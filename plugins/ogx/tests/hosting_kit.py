"""`stackconf serve --runtime` in a process of its own, with stand-ins for the backends, under load."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic, sleep
from typing import Any, Self

from standin_ollama import pieces, vector, wrong

PROGRAM = "import sys; sys.argv[0] = 'stackconf'; from stackconf.cli.main import run; run()"
PATIENCE = 90.0
MODEL = "llama3.2:3b"
CHUNKS = 5

LLAMA_STACK_FILE = """\
version: '2'
image_name: hosted
apis: [inference, tool_runtime]
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config: {{url: "{backend}"}}
  tool_runtime:
  - provider_id: tavily-search
    provider_type: remote::tavily-search
    config: {{api_key: tvly-canary, max_results: 3}}
metadata_store: {{type: sqlite, db_path: {folder}/registry.db}}
models:
- {{model_id: '{model}', provider_id: ollama, model_type: llm}}
server: {{host: 127.0.0.1, port: 8321}}
"""

OGX_FILE = """\
version: 2
distro_name: hosted
apis: [inference, tool_runtime]
providers:
  inference:
  - provider_id: ollama
    provider_type: remote::ollama
    config: {{base_url: "{backend}/v1"}}
  tool_runtime:
  - provider_id: tavily-search
    provider_type: remote::tavily-search
    config: {{api_key: tvly-canary, max_results: 3}}
storage:
  backends:
    kv_default: {{type: kv_sqlite, db_path: {folder}/kv.db}}
    sql_default: {{type: sql_sqlite, db_path: {folder}/sql.db}}
  stores:
    metadata: {{namespace: registry, backend: kv_default}}
    inference: {{table_name: inferences, backend: sql_default, max_write_queue_size: 100, num_writers: 1}}
    conversations: {{table_name: conversations, backend: sql_default}}
    prompts: {{table_name: prompts, backend: sql_default}}
    connectors: {{table_name: connectors, backend: sql_default}}
server: {{host: 127.0.0.1, port: 8321, insecure: true}}
"""

FILES = {"llama-stack": LLAMA_STACK_FILE, "ogx": OGX_FILE}
FIELDS = {"llama-stack": "url", "ogx": "base_url"}
MODELS = {"llama-stack": MODEL, "ogx": f"ollama/{MODEL}"}


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@contextmanager
def backend(name: str, *, delay: float = 0.0, chunks: int = CHUNKS, models: str = MODEL) -> Iterator[str]:
    """A stand-in for Ollama in a process of its own; its address."""
    port = free_port()
    file = Path(__file__).with_name("standin_ollama.py")
    options = ["--delay", str(delay), "--chunks", str(chunks), "--models", models]
    process = subprocess.Popen([sys.executable, str(file), str(port), name, *options])
    url = f"http://127.0.0.1:{port}"
    try:
        end = monotonic() + PATIENCE
        while True:
            try:
                asked(f"{url}/api/version")
                break
            except OSError:
                assert process.poll() is None, process.returncode
                assert monotonic() < end
                sleep(0.05)
        yield url
    finally:
        process.kill()
        process.wait()


def asked(url: str, body: Any = None, method: str = "", patience: float = PATIENCE) -> Any:
    """The JSON that answers a request; a body is sent as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method or ("GET" if data is None else "POST"))
    if data is not None:
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=patience) as answer:
        return json.loads(answer.read())


class Hosted:
    """A process that serves a runtime."""

    def __init__(self, folder: Path, runtime: str, options: Sequence[str] = (), **environ: str) -> None:
        self.folder, self.runtime = folder, runtime
        home = str(folder / "home")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("STACKCONF_")}
        own = {"HOME": home, "LLAMA_STACK_CONFIG_DIR": home, "OGX_CONFIG_DIR": home, "HF_HOME": home}
        self._log = folder / "log"
        command = [sys.executable, "-c", PROGRAM, "serve", "--runtime", runtime, "-s", "stack.yaml"]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", "0", *options],
                cwd=folder,
                env={**clean, **own, **environ},
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        """All that it said so far."""
        return self._log.read_text(errors="replace")

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until it says something."""
        end = monotonic() + PATIENCE
        while monotonic() < end:
            ended = self.process.poll() is not None
            found = re.search(pattern, self.said)
            if found:
                return found
            assert not ended, f"it ended with {self.process.returncode}:\n{self.said}"
            sleep(0.02)
        raise AssertionError(f"it never said {pattern!r}:\n{self.said}")

    @property
    def url(self) -> str:
        """Where it answers, once it does and has applied."""
        self.until(r"info (applied|pending|nothing)|error ")
        return self.until(r"serving .* at (https?://\S+)")[1]

    def register(self, api: str, provider_id: str, **config: Any) -> Any:
        """Register a configuration of one provider, in place of the one before."""
        entry = {"provider_id": provider_id, "config": config}
        return asked(f"{self.url}/v1/configurations/register", {api: [entry]})

    def apply(self) -> Any:
        """Apply what is registered; the report."""
        return asked(f"{self.url}/v1/apply", {"wait": PATIENCE})

    def end(self) -> int:
        """End it as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)


@contextmanager
def hosting(folder: Path, runtime: str, first: str, *options: str, text: str = "") -> Iterator[Hosted]:
    """A runtime with Ollama at the address `first`, served."""
    folder.mkdir(exist_ok=True)
    form = text or FILES[runtime]
    (folder / "stack.yaml").write_text(form.format(backend=first, folder=folder, model=MODEL))
    hosted = Hosted(folder, runtime, options)
    try:
        yield hosted
    finally:
        if hosted.process.poll() is None:
            hosted.process.kill()
        hosted.process.wait()


Ask = Callable[[str, bool], str]
"""Asks a question, as a stream or not; the whole text of the answer."""
Connect = Callable[[], AbstractContextManager[Ask]]


class Load:
    """Threads that ask all the time, each answer checked whole."""

    def __init__(self, connect: Connect, threads: int = 6) -> None:
        self.faults: list[str] = []
        self.answers: dict[str, int] = {}
        self.streams = 0
        self._stop, self._lock = Event(), Lock()
        self._threads = [Thread(target=self._work, args=(connect, number)) for number in range(threads)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(PATIENCE)

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait until something has happened."""
        end = monotonic() + PATIENCE
        while not happened():
            assert monotonic() < end, (self.answers, self.faults[:3])
            sleep(0.01)

    def _work(self, connect: Connect, thread: int) -> None:
        with connect() as ask:
            for count in itertools.count():
                if self._stop.is_set():
                    return
                self._one(ask, f"{thread}x{count}", count % 2 == 0)

    def _one(self, ask: Ask, question: str, streamed: bool) -> None:  # noqa: FBT001 (as in `Ask`)
        try:
            text = ask(question, streamed)
            fault = wrong(text, question, CHUNKS)
        except Exception as error:  # noqa: BLE001 (whatever it is, a request was lost)
            text, fault = "", f"{question}: {type(error).__name__}: {error}"
        with self._lock:
            self.streams += streamed
            name = text.partition("/")[0]
            self.answers[name] = self.answers.get(name, 0) + 1
            if fault:
                self.faults.append(fault)


@contextmanager
def _client(runtime: str, url: str) -> Iterator[Any]:
    """Upstream's own client, which does not try again."""
    client: Any
    if runtime == "ogx":
        from ogx_client import OgxClient

        client = OgxClient(base_url=url, retries=0)
        close = client.api_client.rest_client.close  # its own `close` leaves the connections open
    else:
        from llama_stack_client import LlamaStackClient

        client = LlamaStackClient(base_url=url, max_retries=0, timeout=PATIENCE)
        close = client.close
    try:
        yield client
    finally:
        close()


def client_of(runtime: str, url: str) -> Connect:
    """What asks through upstream's own client."""

    @contextmanager
    def connect() -> Iterator[Ask]:
        with _client(runtime, url) as client:

            def ask(question: str, streamed: bool) -> str:  # noqa: FBT001 (one of two kinds)
                messages = [{"role": "user", "content": f"question #{question}"}]
                answer = client.chat.completions.create(
                    model=MODELS[runtime], messages=messages, stream=streamed
                )
                if not streamed:
                    return str(answer.choices[0].message.content)
                with answer as stream:
                    return "".join(each.choices[0].delta.content or "" for each in stream if each.choices)

            yield ask

    return connect


EMBEDDING_MODELS = {"llama-stack": "all-minilm:latest", "ogx": "ollama/all-minilm:l6-v2"}


def embedding_client_of(runtime: str, url: str, backends: Sequence[str]) -> Connect:
    """What asks for embeddings instead; the answer is the text of the backend whose numbers they are."""
    model = EMBEDDING_MODELS[runtime]

    @contextmanager
    def connect() -> Iterator[Ask]:
        with _client(runtime, url) as client:

            def ask(question: str, streamed: bool) -> str:  # noqa: FBT001 (two texts or one)
                texts = [question, f"{question}, again"][: 1 + streamed]
                answer = _embedded(runtime, client, model, texts)
                for name in backends:
                    if answer == [vector(name, text) for text in texts]:
                        return "".join(pieces(name, question, CHUNKS))
                return f"of no backend: {answer}"

            yield ask

    return connect


def _embedded(runtime: str, client: Any, model: str, texts: Sequence[str]) -> list[list[float]]:
    if runtime == "llama-stack":
        answer = client.embeddings.create(model=model, input=list(texts))
        return [each.embedding for each in answer.data]
    from ogx_client.models import open_ai_embeddings_request_with_extra_body as bodies

    body = {"model": model, "input": list(texts)}
    answer = client.embeddings.create(bodies.OpenAIEmbeddingsRequestWithExtraBody.from_dict(body))
    return [each.embedding for each in answer.data]
