"""What a provider author tests with: machines made to order, and a stack to put a plugin in.

Beside these, what tests of a plugin need again and again: a server that stands in for the real
one, a port where nobody listens, and a process that knows nothing of this one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

from stackconf.hardware.facts import Accelerator, Cpu, Hardware, Host, Limit, Memory, Problem

if TYPE_CHECKING:
    from http.server import BaseHTTPRequestHandler
    from subprocess import CompletedProcess

    from stackconf.stack import Stack

GIB = 1024**3


def machine(
    *,
    cores: int = 8,
    memory_gib: float = 32,
    cpu_quota: float | None = None,
    memory_limit_gib: float | None = None,
    isa: Sequence[str] = ("avx2", "f16c", "fma"),
    accelerators: Sequence[Accelerator] = (),
) -> Hardware:
    """A consistent machine with two hyper-threads per physical core, for tests of `default_config`.

    `cpu_quota` is in CPUs. Without accelerators, it is certain that there are none.

    >>> machine(cores=8, cpu_quota=2.5).cpu.usable_physical_cores
    2
    >>> machine(memory_gib=64, memory_limit_gib=16).memory.usable_bytes == 16 * GIB
    True
    """
    threads = 2 * cores
    total = int(memory_gib * GIB)
    cpu_limits = () if cpu_quota is None else (Limit(cpu_quota, "cgroup v2 cpu.max"),)
    limit = None if memory_limit_gib is None else int(memory_limit_gib * GIB)
    memory_limits = () if limit is None else (Limit(limit, "cgroup v2 memory.max"),)
    return Hardware(
        host=Host(os="Linux", architecture="x86_64", container="", wsl=0, cgroup="v2"),
        cpu=Cpu(
            model="Synthetic CPU",
            vendor="GenuineIntel",
            architecture="x86_64",
            sockets=1,
            physical_cores=cores,
            logical_cores=threads,
            affinity=tuple(range(threads)),
            usable_physical_cores=cores if cpu_quota is None else max(1, min(cores, int(cpu_quota))),
            usable_cores=float(threads) if cpu_quota is None else min(float(threads), cpu_quota),
            limits=cpu_limits,
            bound_by=cpu_limits[0].source if cpu_limits else "cores",
            isa=frozenset(isa),
        ),
        memory=Memory(
            total_bytes=total,
            available_bytes=total,
            usable_bytes=total if limit is None else min(total, limit),
            limits=memory_limits,
            bound_by=memory_limits[0].source if memory_limits else "total",
        ),
        accelerators=tuple(accelerators),
        problems=() if accelerators else (Problem("nvidia", "accelerators", "absent", "no NVIDIA driver"),),
    )


def no_hardware() -> Hardware:
    """A machine of which nothing could be discovered: every default must cope with it.

    >>> no_hardware().cpu.usable_cores is None
    True
    """
    return Hardware(problems=(Problem("host", "everything", "error", "nothing could be read"),))


@contextmanager
def stack_with(
    plugins: Sequence[object],
    providers: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    hardware: Hardware | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Stack]:
    """A real stack of these plugins only, with its file and its store in a folder of its own.

    `providers` is what stands under `providers:` in a stack file. Nothing installed is looked at,
    and the environment is empty unless given.

    >>> from pydantic import BaseModel
    >>> from stackconf import ProviderType, because, hookimpl, user_field
    >>> class Config(BaseModel):
    ...     threads: int = user_field(1)
    >>> class Plugin:
    ...     provides = (ProviderType("inference", "remote::acme", Config),)
    ...     @hookimpl
    ...     def default_config(self, provider, hardware):
    ...         return {"threads": because(hardware.cpu.usable_physical_cores, "one a core")}
    >>> entry = {"provider_id": "acme", "provider_type": "remote::acme"}
    >>> with stack_with([Plugin()], {"inference": [entry]}, hardware=machine(cores=4)) as stack:
    ...     [origin.value for origin in stack.explain("acme", "threads")]
    [4]
    """
    from stackconf.registry.registry import Registry
    from stackconf.stack import Stack

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "stack.yaml")
        file.write_text(json.dumps({"version": 2, "providers": providers}), encoding="utf-8")
        registry = Registry(plugins=plugins, entry_points=False)
        machine_facts = machine() if hardware is None else hardware
        with Stack.open(file, registry=registry, hardware=machine_facts, environ=environ or {}) as stack:
            yield stack


@contextmanager
def serve(
    handler: type[BaseHTTPRequestHandler], *, port: int = 0, certificate: Path | None = None
) -> Iterator[str]:
    """Serve HTTP on this machine while the block runs; yields the address, without a slash at its end.

    For a stand-in of a remote service. `port` 0 takes a free one. With a `certificate`, a PEM file that
    holds its key as well, it speaks TLS. Each request has a thread of its own. A client that
    hangs up is no error.

    >>> from http.server import BaseHTTPRequestHandler
    >>> from urllib.request import urlopen
    >>> class Handler(BaseHTTPRequestHandler):
    ...     def do_GET(self):
    ...         self.send_response(204)
    ...         self.end_headers()
    ...     def log_message(self, *_): ...
    >>> with serve(Handler) as url:
    ...     urlopen(url, timeout=10).status
    204
    """
    from http.server import ThreadingHTTPServer
    from threading import Thread

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            if not isinstance(sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)

    with Server(("127.0.0.1", port), handler) as server:
        if certificate is not None:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def unused_port() -> int:
    """A port of this machine on which nobody listens, for a server that is down.

    Nobody has it at the moment of the call; the system may give it away later.
    """
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def fresh_process(code: str, *arguments: object) -> CompletedProcess[str]:
    r"""Run Python code in a process that knows nothing of this one; `sys.argv[1:]` are the arguments.

    For what an import costs, and for what is left of an apply that was killed.

    >>> done = fresh_process("import sys; print(sys.argv[1:], 'stackconf' in sys.modules)", 1, "a")
    >>> done.returncode, done.stdout
    (0, "['1', 'a'] False\n")
    """
    import subprocess

    run = [sys.executable, "-c", dedent(code), *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, encoding="utf-8", check=False)  # noqa: S603
