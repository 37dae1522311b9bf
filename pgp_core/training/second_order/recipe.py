"""One drawn degradation: every number but the noise fields themselves."""

from __future__ import annotations

from dataclasses import dataclass

from .kernels import Kernel

#: Ways to resize.
MODES = ("area", "bilinear", "bicubic")


@dataclass(frozen=True)
class Noise:
    """Noise that is added.

    Attributes:
        kind: "gaussian" or "poisson".
        level: gaussian: standard deviation in levels of 255; poisson: factor on the noise of 256 photons at white.
        grey: one field for all channels; Poisson's follows the luma.
    """

    kind: str
    level: float
    grey: bool


@dataclass(frozen=True)
class Pass:
    """Blur, resize, noise, JPEG.

    Attributes:
        blur: None for no blur.
        direction: "up", "down" or "keep".
        factor: of the resize; in the second pass relative to LQ's size.
        mode: one of :data:`MODES`.
        jpeg: quality.
    """

    blur: Kernel | None
    direction: str
    factor: float
    mode: str
    noise: Noise
    jpeg: int


@dataclass(frozen=True)
class Recipe:
    """Two passes, whose end is the resize to LQ's size with a sinc filter.

    Attributes:
        mode: of that resize.
        sinc: filter after it, or None.
        jpeg_last: whether the second pass's JPEG comes after resize and sinc filter, or before them.
    """

    first: Pass
    second: Pass
    mode: str
    sinc: Kernel | None
    jpeg_last: bool
