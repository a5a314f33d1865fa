"""`stackconf serve`: host a stack, with the Configuration API over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stackconf.cli.logged import logged
from stackconf.cli.opening import looking, open_registry, stack_path, store_file, store_here
from stackconf.cli.options import SECONDS, Command, Settings, pass_settings, stack_options

if TYPE_CHECKING:
    from stackconf.server.tls import Tls
    from stackconf.stack import Stack
    from stackconf.store.base import Store


@click.command("serve", cls=Command, place="here")
@click.option("--host", help="The address to listen on. [default: 127.0.0.1, or as the runtime's file says]")
@click.option(
    "--port", type=click.IntRange(0, 65535), help="And its port. [default: 8420, or as the file says]"
)
@click.option("--no-apply", is_flag=True, help="Do not begin with an apply.")
@click.option(
    "--grace",
    metavar="SECONDS",
    type=SECONDS,
    default=30.0,
    show_default=True,
    help="How long an apply that runs at the end may still take before it is taken back.",
)
@click.option("--token-file", metavar="FILE", type=click.Path(), help="Who may ask: NAME SCOPE TOKEN a line.")
@click.option("--allow-host", metavar="NAME", multiple=True, help="A name under which it may be asked.")
@click.option(
    "--tls-cert", metavar="FILE", type=click.Path(), help="Serve HTTPS with this certificate (PEM)."
)
@click.option("--tls-key", metavar="FILE", type=click.Path(), help="And its key.")
@click.option(
    "--audit-file",
    metavar="FILE",
    type=click.Path(),
    help="Where a line is added for every change; beside the store where it is not given.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How each line of the log is written.",
)
@stack_options
@pass_settings
def serve(  # noqa: PLR0913 (an option each)
    settings: Settings,
    *,
    host: str | None,
    port: int | None,
    no_apply: bool,
    grace: float,
    token_file: str | None,
    allow_host: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    audit_file: str | None,
    log_format: str,
) -> None:
    """Host a stack: its providers run here, and the Configuration API answers over HTTP.

    With a runtime (--runtime, or `runtime:` in the file) the real server of that runtime is started
    here, where its file says, and changed while it serves.

    It ends with Ctrl-C or SIGTERM, after the apply that runs. SIGHUP has it read the stack file
    again. Any address but this machine's own needs a token: in a file, or in STACKCONF_SERVE_TOKEN.
    """
    from stackconf.server.listening import Listening
    from stackconf.server.serving import serve as serve_stack
    from stackconf.server.tokens import tokens_of

    path = stack_path(settings)
    registry = open_registry(settings)
    look = looking(registry)

    def opening(store: Store | None) -> Stack:
        from stackconf.stack import Stack

        return Stack.open(
            path,
            store=store or store_here(settings),
            registry=registry,
            hardware=look,
            skip_unknown=settings.skip_unknown or None,
            runtime=settings.runtime,
        )

    tokens = tokens_of(os.environ, token_file)
    listening = Listening(
        host,
        port,
        grace,
        tokens,
        frozenset(each.lower().rstrip(".") for each in allow_host),
        tls=_tls(tls_cert, tls_key),
        audit=Path(audit_file) if audit_file else _beside(store_file(settings)),
    )
    with logged(settings, log_format):
        serve_stack(opening, listening, apply=not no_apply)


def _tls(certificate: str | None, key: str | None) -> Tls | None:
    from stackconf.server.tls import Tls

    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise click.UsageError("--tls-cert and --tls-key go together")
    return Tls(Path(certificate), Path(key))


def _beside(store: Path) -> Path:
    return store.with_name(f"{store.name}.audit.jsonl")
