"""The picture of a machine on a terminal and in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stackconf.atomic import write_whole
from stackconf.cli.output import Screen, err
from stackconf.errors import InvalidConfig
from stackconf.hardware.picture import scene_of, to_svg, to_text

if TYPE_CHECKING:
    from stackconf.cli.options import Settings
    from stackconf.hardware.facts import Hardware
    from stackconf.hardware.picture import Use

_WIDEST = 80
_SVG_COLUMNS = 96


def draw(screen: Screen, hardware: Hardware, uses: Sequence[Use] = ()) -> None:
    """Draw a machine, and an empty line below it; nothing where the terminal is too narrow.

    What follows says the same.
    """
    room = _WIDEST if screen.width is None else min(screen.width, _WIDEST)
    scene = scene_of(hardware, room, uses=uses)
    if scene.width > room:
        return
    for line in to_text(scene, encoding=getattr(screen.stream, "encoding", None)):
        screen.line(line)
    screen.line()


def write_svg(settings: Settings, hardware: Hardware, file: str, uses: Sequence[Use] = ()) -> None:
    """Write the picture to a file, whole or not at all. Raises `InvalidConfig` where that fails."""
    scene = scene_of(hardware, _SVG_COLUMNS, uses=uses)
    try:
        write_whole(file, to_svg(scene).encode(), mode=0o644)
    except OSError as error:
        raise InvalidConfig(f"{file}: {error.strerror or error}; the picture was not written") from None
    except ValueError:  # a NUL in the name
        raise InvalidConfig(f"{file!r} cannot be the name of a file") from None
    err(settings).line(f"wrote {file}", "dim")
