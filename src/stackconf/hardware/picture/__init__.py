"""A machine as a picture: one layout, drawn as text or as SVG."""

from __future__ import annotations

from stackconf.hardware.picture.layout import Use, scene_of
from stackconf.hardware.picture.scene import Scene
from stackconf.hardware.picture.svg import to_svg
from stackconf.hardware.picture.text import to_text

__all__ = ["Scene", "Use", "scene_of", "to_svg", "to_text"]
