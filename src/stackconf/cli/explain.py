"""`stackconf explain`: where each value comes from, why, and what it beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from stackconf.cli.machines import Given, one_machine
from stackconf.cli.naming import ProviderName
from stackconf.cli.opening import client_of, opened, stack_of
from stackconf.cli.options import Command, Settings, pass_settings, stack_options
from stackconf.cli.output import Screen, emit_json, out, plural, show_issues, value_text, visible
from stackconf.cli.waiting import waiting

if TYPE_CHECKING:
    from stackconf.cli.opening import Opened
    from stackconf.client.calls import Explained
    from stackconf.types import Issue, Origin


@click.command("explain", cls=Command, takes_hardware=True)
@click.argument("provider", type=ProviderName())
@click.argument("field", required=False)
@stack_options
@pass_settings
def explain(settings: Settings, provider: str, field: str | None) -> int:
    """Say where the values of PROVIDER come from, or only those at and below FIELD.

    PROVIDER is `api/provider_id`, or a provider_id that only one api has. Layers, low to high:
    class, hardware, stack, overlay. With -v the class defaults are told one by one.
    """
    on = one_machine(settings)
    with opened(settings, on=on) as stack, waiting(settings, "resolving"):
        found = _explained(stack, provider, field)
        key = found.provider
        issues = [issue for issue in stack.issues if issue.level == "error" or issue.provider == key]
    if settings.json:
        _emit(found, issues, on)
    else:
        screen = out(settings)
        if on:
            screen.line(f"hardware: {on}", "dim")
        screen.line(f"{key} ({found.provider_type})", "bold")
        if found.share is not None:
            has = "has " if found.has_some else ""
            screen.paragraph(f"{has}{found.share}", indent="  ", hang="    ")
        _Explanation(screen).show(found.origins, condensed=field is None and not settings.verbose)
    return int(show_issues(settings, issues))


def _explained(stack: Opened, provider: str, field: str | None) -> Explained:
    from stackconf.client import calls

    client = client_of(stack)
    if client is not None:
        return client.do(calls.explained(provider, field))
    key = stack.key_of(provider)
    found = stack.explain(key, field)
    resolution = stack_of(stack).resolution
    share, kind = resolution.shares.get(key), resolution.providers[key].provider.provider_type
    reason, some = (None, False) if share is None else (share.reason, bool(share.units))
    return calls.Explained(key, kind, found, reason, some)


class _Explanation:
    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def show(self, found: Sequence[Origin], *, condensed: bool) -> None:
        told = [origin for origin in found if not condensed or origin.layer != "class" or origin.reason]
        for origin in told:
            self._screen.line()
            self._origin(origin)
        rest = [each for each in found if each.layer == "class" and not each.reason] if condensed else []
        if rest:
            self._defaults(rest)

    def _origin(self, origin: Origin) -> None:
        label = "" if origin.user_field else "  (not a user field)"
        value = visible(value_text(origin.value))
        start = f"  {self._screen.style(visible(origin.path), 'bold')} ="
        width = self._screen.width
        if width is None or len(origin.path) + len(value) + len(label) < width - 6:
            end = self._screen.style(label, "dim")
            self._screen.raw(f"{start} {self._screen.style(value, 'green')}{end}\n")
        else:
            self._screen.raw(f"{start}{self._screen.style(label, 'dim')}\n")
            self._screen.paragraph(value, "green", indent=" " * 4)
        self._layer("from", origin, "")
        for each in origin.beat:
            self._layer("over", each, f"{value_text(each.value)}  ")

    def _layer(self, word: str, origin: Origin, value: str) -> None:
        indent = f"    {word}  {origin.layer:8}  "
        reason = f": {origin.reason}" if origin.reason else ""
        styles = () if word == "from" else ("dim",)
        text = f"{value}{origin.source}{reason}"
        self._screen.paragraph(text, *styles, indent=indent, hang=" " * len(indent))

    def _defaults(self, rest: Sequence[Origin]) -> None:
        source = rest[0].source
        self._screen.line()
        text = f"{plural(len(rest), 'field')} as the class has them ({source})"
        self._screen.paragraph(text, "dim", indent="  ", hang=" " * 4)
        for origin in rest:
            start = f"      {origin.path} = "
            self._screen.paragraph(value_text(origin.value), indent=start, hang=" " * 10)


def _emit(found: Explained, issues: Sequence[Issue], on: Given | None) -> None:
    from stackconf.shapes.issues import issues_data
    from stackconf.shapes.origins import origin_data

    data: dict[str, Any] = {
        "provider": found.provider,
        "provider_type": found.provider_type,
        "fields": [origin_data(origin) for origin in found.origins],
        "issues": issues_data(issues),
    }
    shared = {"share": found.share} if found.share is not None else {}
    emit_json({**data, **shared, **({"hardware": on.data()} if on else {})})
