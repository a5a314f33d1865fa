"""Where one value came from, and what it beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.packing import packed
from stackconf.shapes.reading import Given, choice

if TYPE_CHECKING:
    from stackconf.types import Origin


def origin_data(origin: Origin) -> dict[str, Any]:
    """The origin of one leaf. What it beat is of the same path, and has its labels."""
    return {
        "path": origin.path,
        "value": packed(origin.value),
        "layer": origin.layer,
        "source": origin.source,
        "reason": origin.reason,
        "user_field": origin.user_field,
        "update": origin.update,
        "beat": [
            {"layer": each.layer, "value": packed(each.value), "source": each.source, "reason": each.reason}
            for each in origin.beat
        ],
    }


def origin_from(data: object) -> Origin:
    """What `origin_data` wrote."""
    from stackconf.types import LayerName, Origin, UpdateClass

    given = Given(data)
    path, user, update = (
        given.text("path"),
        given.flag("user_field"),
        given.one("update", choice(UpdateClass)),
    )

    def candidate(data: object, beat: tuple[Origin, ...] = ()) -> Origin:
        one = Given(data)
        return Origin(
            path,
            one.one("layer", choice(LayerName)),
            one.value("value"),
            one.text("source"),
            one.some_text("reason"),
            user,
            update,
            beat,
        )

    return candidate(data, given.each("beat", candidate))
