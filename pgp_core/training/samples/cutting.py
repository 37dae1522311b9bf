"""Where a crop is cut, and how it becomes a pair of LQ canvas and HQ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ...errors import PGPError
from ..subject import Sample

Pixels = npt.NDArray[np.uint8]

#: LQ pixels on each side of a crop that are degraded with it and then cut away, so that blur and JPEG see no border
#: that the full picture would not have; less where the picture is too small.
MARGIN = 4
#: So many more are spread over the two sides at random: JPEG's grid of 8 pixels then starts anywhere in the crop.
SPREAD = 7

#: How LQ is enlarged to the canvas, by name. "lanczos" is what upscaling does.
ENLARGEMENTS = {
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
#: FaithDiff's training took one of these at random.
FAITHDIFF_ENLARGEMENTS = ("nearest", "bilinear", "bicubic")


class Degrades(Protocol):
    """A random degradation."""

    @property
    def scale(self) -> int:
        """HQ pixels per LQ pixel."""

    def draw(self, hq: Image.Image, rng: np.random.Generator) -> Image.Image:
        """A random LQ version, at 1/scale of the size."""


@dataclass(frozen=True)
class Span:
    """A crop along one axis, HQ pixels.

    Attributes:
        start, length: of the crop with its margins.
        before: margin before the crop, a multiple of the scale.
    """

    start: int
    length: int
    before: int


def draw_span(rng: np.random.Generator, size: int, patch: int, scale: int) -> Span:
    """A random crop along an axis of ``size`` pixels, at least ``patch``."""
    room = min(2 * MARGIN + SPREAD, (size - patch) // scale)
    least = min(MARGIN, room // 2)
    before = int(rng.integers(least, room - least + 1))
    length = patch + room * scale
    return Span(int(rng.integers(size - length + 1)), length, before * scale)


@dataclass(frozen=True)
class Cutter:
    """Makes pairs.

    Attributes:
        patch: the crop's side, HQ pixels; a multiple of the degradation's scale.
        degradation: HQ to LQ.
        enlarge: keys of :data:`ENLARGEMENTS`, one of which is drawn for each crop.

    Raises:
        PGPError: for a patch that does not fit, or an unknown enlargement.
    """

    patch: int
    degradation: Degrades
    enlarge: Sequence[str] = ("lanczos",)

    def __post_init__(self) -> None:
        scale = self.degradation.scale
        if self.patch < 8 * scale or self.patch % scale:
            raise PGPError(f"a crop of {self.patch} pixels: it must be a multiple of {scale}, {8 * scale} or more")
        unknown = [name for name in self.enlarge if name not in ENLARGEMENTS]
        if unknown or not self.enlarge:
            raise PGPError(f"enlarge must name some of {', '.join(ENLARGEMENTS)}, not {list(self.enlarge)!r}")

    def draw(self, picture: Pixels, rng: np.random.Generator, caption: str = "") -> Sample:
        """A random crop of ``picture``, ``(H, W, 3)`` RGB, neither side below ``patch``."""
        height, width = picture.shape[:2]
        y, x = (draw_span(rng, size, self.patch, self.degradation.scale) for size in (height, width))
        hq = np.ascontiguousarray(picture[y.start : y.start + y.length, x.start : x.start + x.length])
        lq = self.degradation.draw(Image.fromarray(hq), rng)
        how = ENLARGEMENTS[self.enlarge[int(rng.integers(len(self.enlarge)))]]
        canvas = np.asarray(lq.resize((x.length, y.length), how))
        inner = slice(y.before, y.before + self.patch), slice(x.before, x.before + self.patch)
        corner = y.start + y.before, x.start + x.before
        return Sample(_tensor(canvas[inner]), _tensor(hq[inner]), caption, (height, width), corner)


def _tensor(pixels: Pixels) -> torch.Tensor:
    """``(H, W, 3)`` levels to ``(3, H, W)`` in [0, 1]."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return torch.from_numpy(planes).float().div_(255)
