"""Where a crop is cut, and how it becomes a pair of LQ canvas and HQ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from ...errors import PGPError
from ..subject import Sample

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

    def draw(self, picture: Image.Image, rng: np.random.Generator, caption: str = "", mirror: bool = False) -> Sample:
        """A random crop of ``picture``, RGB, neither side below ``patch``.

        Args:
            mirror: whether to cut from the picture's mirror image, in which the corner is then counted.
        """
        scale = self.degradation.scale
        y, x = (draw_span(rng, size, self.patch, scale) for size in (picture.height, picture.width))
        left = picture.width - x.start - x.length if mirror else x.start
        hq = picture.crop((left, y.start, left + x.length, y.start + y.length))
        if mirror:
            hq = hq.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        lq = self.degradation.draw(hq, rng)
        how = ENLARGEMENTS[self.enlarge[int(rng.integers(len(self.enlarge)))]]
        # With ``box``, Pillow's filters still reach beyond it: this is the inside of the enlarged whole.
        inner = x.before, y.before, x.before + self.patch, y.before + self.patch
        box = x.before / scale, y.before / scale, inner[2] / scale, inner[3] / scale
        canvas = lq.resize((self.patch, self.patch), how, box)
        corner = y.start + y.before, x.start + x.before
        size = picture.height, picture.width
        # The box is in whole pixels: margins and crop are multiples of the scale.
        small = lq.crop((int(box[0]), int(box[1]), int(box[2]), int(box[3])))
        return Sample(_tensor(canvas), _tensor(hq.crop(inner)), caption, size, corner, _tensor(small))


def _tensor(picture: Image.Image) -> torch.Tensor:
    """``(3, H, W)`` in [0, 1]."""
    pixels = torch.from_numpy(np.array(picture))
    return pixels.permute(2, 0, 1).contiguous().float().div_(255)
