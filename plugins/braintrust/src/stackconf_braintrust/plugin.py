"""The plugin: `scoring/inline::braintrust`. `autoevals` and `openai` are imported when applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import Issue, ProviderType, because, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackconf import Applied, Hardware, Provider
    from stackconf_braintrust.config import BraintrustConfig

stackconf_api = 1

provides = (
    ProviderType(
        "scoring",
        "inline::braintrust",
        "stackconf_braintrust.config:BraintrustConfig",
        description="Scores answers with Braintrust's autoevals: heuristics, and a model as judge",
        api_dependencies=("datasetio",),
        in_process=True,
    ),
)

WAITING_THREADS = 4
MOST_THREADS = 32


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object] | None:
    """Rows scored at once: usable cores + 4, at most 32.

    A row waits for the judge's answer over the network, and only building the request and reading
    the answer take a core. The formula is Python's own for work that waits, `min(32, cores + 4)`
    (`concurrent.futures.ThreadPoolExecutor`, since 3.8), with the cores that this process may
    use in place of all cores of the host.
    """
    cores = hardware.cpu.usable_cores
    if cores is None:
        return None
    rows = min(MOST_THREADS, int(cores) + WAITING_THREADS)
    capped = f", at most {MOST_THREADS}" if rows == MOST_THREADS else ""
    reason = f"{cores:g} usable cores + {WAITING_THREADS}{capped}: rows wait for the network, not for cores"
    return {"max_concurrency": because(rows, reason)}


@hookimpl
def validate_user_config(config: BraintrustConfig) -> Iterator[Issue]:
    """Settings of a judge that nobody can ask."""
    if config.openai_api_key is not None:
        return
    for field in ("judge_model", "embedding_model", "openai_base_url"):
        if getattr(config, field):
            yield Issue(
                "has no effect without openai_api_key",
                level="warning",
                path=field,
                hint="set openai_api_key; a service that wants none takes any word",
            )


@hookimpl
def apply_config(provider: Provider, config: BraintrustConfig | None) -> Applied:
    """Exchange what this process scores with; see `running`."""
    from stackconf_braintrust import running

    return running.leave(provider.key) if config is None else running.join(provider.key, config)
