"""Inputs that several nodes have, with the same widget."""

from __future__ import annotations

from comfy_api.latest import io

from ..pgp_core.choices import MAX_FIDELITY, WRAPS
from ..pgp_core.errors import PGPError
from ..pgp_core.images.sizes import MAX_SCALE, MIN_SCALE
from ..pgp_core.restorers.nano.model import Files
from ..pgp_core.restorers.nano.natural import natural_default


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


def fidelity_input() -> io.Float.Input:
    """From what size of detail upwards a result follows its input; the last, as saved graphs lack it."""
    return io.Float.Input(
        "fidelity",
        default=0.0,
        min=0.0,
        max=float(MAX_FIDELITY),
        step=0.5,
        optional=True,
        tooltip="Follow the low-quality picture in all that is coarser than this many pixels of the result. 0 is off; "
        "the fewer pixels, the more faithful. Try the scale (4 for four times the size), twice that where edges get "
        "halos.",
    )


def natural_input() -> io.Float.Input:
    """From nano's faithful LoRA to its natural one; the last, as saved graphs lack it."""
    return io.Float.Input(
        "natural",
        default=own_natural(),
        min=0.0,
        max=1.0,
        step=0.05,
        optional=True,
        tooltip="Nano's one step, where it has two LoRAs: 0 is the faithful one, 1 the natural one, between them are "
        "weights between theirs. Other models do not read it.",
    )


def own_natural() -> float:
    """How natural nano is meant to be; what is wrong with its file is said when it is loaded."""
    try:
        return natural_default(Files())
    except PGPError:
        return 0.0
