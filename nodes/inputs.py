"""Inputs that several nodes have, with the same widget."""

from __future__ import annotations

from comfy_api.latest import io

from ..pgp_core.choices import WRAPS
from ..pgp_core.images.sizes import MAX_SCALE, MIN_SCALE


def scale_input(tooltip: str) -> io.Float.Input:
    """Result over input."""
    return io.Float.Input("scale", default=4.0, min=MIN_SCALE, max=MAX_SCALE, step=0.01, tooltip=tooltip)


def strength_input(tooltip: str = "") -> io.Float.Input:
    """How much of the guidance acts.

    Args:
        tooltip: a further sentence.
    """
    said = "How much of the guidance to take: 1 as trained, 0 none. Less is freer and less faithful."
    return io.Float.Input("strength", default=1.0, min=0.0, max=1.0, step=0.01, tooltip=f"{said} {tooltip}".rstrip())


def wrap_input(tooltip: str) -> io.Combo.Input:
    """Along which axes a picture repeats; graphs that were saved before it was there lack it."""
    return io.Combo.Input("wrap", options=list(WRAPS), default="none", optional=True, tooltip=tooltip)
