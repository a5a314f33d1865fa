"""The plugin: `agents/inline::meta-reference`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stackconf import Issue, ProviderType, because, hookimpl, memory_share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stackconf import Applied, Hardware, Provider
    from stackconf_agents.config import AgentsConfig

stackconf_api = 1

provides = (
    ProviderType(
        "agents",
        "inline::meta-reference",
        "stackconf_agents.config:AgentsConfig",
        description="Agents and responses; keeps their sessions in sqlite, PostgreSQL, Redis or MongoDB",
        api_dependencies=("inference", "safety", "vector_io", "tool_runtime"),
        in_process=True,
    ),
)

CACHE_SHARE = 1 / 512
SMALLEST_CACHE = 2_048_000
LARGEST_CACHE = 64 * 1024**2


@hookimpl
def default_config(hardware: Hardware) -> Mapping[str, object] | None:
    """Size the page cache of the state file: 1/512 of usable memory, 2048000 bytes to 64 MiB.

    Every turn of an agent reads its session again, and a page in the cache saves a read of the
    file. The lower bound is SQLite's own default (https://sqlite.org/pragma.html#pragma_cache_size);
    the upper one holds some 16 000 pages of 4 KiB, more than a person's sessions fill. The share is
    small since the file's pages are in the system's cache as well. SQLite takes the memory page by
    page as they are read.
    """
    share = memory_share(hardware, CACHE_SHARE, at_most=LARGEST_CACHE)
    if share is None:
        return None
    if share.value >= SMALLEST_CACHE:
        return {"sqlite_cache_bytes": share}
    reason = f"{share.reason} would be less than SQLite's own default"
    return {"sqlite_cache_bytes": because(SMALLEST_CACHE, reason)}


@hookimpl
def validate_user_config(config: AgentsConfig) -> Iterator[Issue]:
    """The two forms of one setting, where both are given."""
    if config.persistence is None:
        return
    for older, newer in (("persistence_store", "agent_state"), ("responses_store", "responses")):
        if getattr(config, older) is not None:
            yield Issue(
                f"is not used: `persistence.{newer}` is given",
                level="warning",
                path=older,
                hint="remove one of the two",
            )


@hookimpl
def apply_config(provider: Provider, config: AgentsConfig | None) -> Applied:
    """Open the stores, and exchange what this process keeps its agents' state in; see `running`."""
    from stackconf_agents import running

    return running.leave(provider.key) if config is None else running.join(provider.key, config)
