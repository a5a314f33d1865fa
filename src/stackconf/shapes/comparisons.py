"""One stack on several machines, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stackconf.shapes.hardware import hardware_data, hardware_from
from stackconf.shapes.issues import issue_from, issues_data
from stackconf.shapes.origins import origin_data, origin_from
from stackconf.shapes.providers import provider_data, provider_from
from stackconf.shapes.reading import Given, Misshapen, flag

if TYPE_CHECKING:
    from stackconf.comparison import ComparedProvider, Comparison, Machine, Row
    from stackconf.types import Origin


def comparison_data(found: Comparison) -> dict[str, Any]:
    """Every field of every provider on every machine; `values` are in the machines' order."""
    return {
        "stack": found.stack,
        "revision": found.revision,
        "machines": [
            {
                "name": machine.name,
                "hardware": hardware_data(machine.hardware),
                "issues": issues_data(machine.issues),
            }
            for machine in found.machines
        ],
        "providers": [
            {
                **provider_data(each.provider),
                "valid": list(each.valid),
                "fields": [_row_data(row) for row in each.rows],
            }
            for each in found.providers
        ],
        "issues": issues_data(found.issues),
    }


def comparison_from(data: object) -> Comparison:
    """What `comparison_data` wrote."""
    from stackconf.comparison import Comparison

    given = Given(data)
    return Comparison(
        given.text("stack"),
        given.whole("revision"),
        given.each("machines", _machine_from),
        given.each("providers", _provider_from),
        given.each("issues", issue_from),
    )


def _machine_from(data: object) -> Machine:
    from stackconf.comparison import Machine

    given = Given(data)
    return Machine(given.text("name"), given.one("hardware", hardware_from), given.each("issues", issue_from))


def _provider_from(data: object) -> ComparedProvider:
    from stackconf.comparison import ComparedProvider

    given = Given(data)
    return ComparedProvider(provider_from(data), given.each("valid", flag), given.each("fields", _row_from))


def _row_data(row: Row) -> dict[str, Any]:
    return {
        "path": row.path,
        "differs": row.differs,
        "values": [None if origin is None else origin_data(origin) for origin in row.origins],
    }


def _row_from(data: object) -> Row:
    from stackconf.comparison import Row

    given = Given(data)
    origins = given.each("values", _origin_or_none)
    if not origins:
        raise Misshapen("is empty", "values")
    return Row(given.text("path"), origins)


def _origin_or_none(data: object) -> Origin | None:
    return None if data is None else origin_from(data)
