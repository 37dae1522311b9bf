"""Pictures as the page shows them: 8 bits, cut where they are too large, packed as WebP."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ....images.picture import Picture
from .. import pictures

#: Speed of libwebp, 0 fast to 6 small. 2 takes half the time of 4 for some 3 % more bytes.
_METHOD = 2


@dataclass(frozen=True)
class Source:
    """A picture that is to be on the page.

    Attributes:
        file: which.
        lossless: whether its pixels are to be seen as they are: LQ pictures, which are small and shown enlarged.
        enlarged: to this width and height, bicubically, for a bicubic row without a file of its own.
    """

    file: Path
    lossless: bool = False
    enlarged: tuple[int, int] | None = None


@dataclass(frozen=True)
class Packed:
    """A picture on the page.

    Attributes:
        data: WebP.
        size: width and height of what is in it.
        full: of the file.
        alpha: whether parts of it may be transparent.
    """

    data: bytes
    size: tuple[int, int]
    full: tuple[int, int]
    alpha: bool = False

    @property
    def cut(self) -> bool:
        """Whether it is a part of the file's picture only."""
        return self.size != self.full


def shown(picture: Picture) -> Image.Image:
    """8 bits a channel, grey or RGB, with alpha where the file has it. 16 bits are rounded, not cut off."""
    planes = [picture.pixels if picture.alpha is None else _colour(picture.pixels)]
    if picture.alpha is not None:
        planes.append(picture.alpha[..., None])
    levels = np.concatenate(planes, -1)
    if levels.dtype != np.uint8:
        levels = ((levels.astype(np.uint32) * 255 + picture.white // 2) // picture.white).astype(np.uint8)
    image = Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)
    if picture.metadata.icc:
        image.info["icc_profile"] = picture.metadata.icc
    return image


def _colour(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels


@dataclass(frozen=True)
class Part:
    """A part of a picture, as shares of its width and height, so that the same place can be taken from pictures of
    several sizes."""

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    @staticmethod
    def middle(size: tuple[int, int], share: tuple[float, float]) -> Part:
        """As much of the middle, in whole pixels of the smallest of the pictures, which has the largest.

        Args:
            size: width and height of the smallest.
            share: of them.
        """
        edges = []
        for pixels, part in zip(size, share, strict=True):
            taken = max(1, min(pixels, int(pixels * part)))
            first = (pixels - taken) // 2
            edges.append((first / pixels, (first + taken) / pixels))
        (left, right), (top, bottom) = edges
        return Part(left, top, right, bottom)

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """In pixels of a picture of this width and height."""
        width, height = size
        left, top = min(round(self.left * width), width - 1), min(round(self.top * height), height - 1)
        return left, top, max(left + 1, round(self.right * width)), max(top + 1, round(self.bottom * height))


def read(source: Source) -> Image.Image:
    """The whole picture.

    Raises:
        PictureError, PGPError: see :func:`pgp_core.evaluation.benchmark.pictures.read`.
    """
    image = shown(pictures.read(source.file))
    return image.resize(source.enlarged, Image.Resampling.BICUBIC) if source.enlarged else image


def pack(image: Image.Image, quality: int | None, part: Part = Part()) -> Packed:
    """Compress a picture.

    Args:
        quality: of WebP, 1 to 100; None for every pixel as it is.
        part: what is taken of it.
    """
    box = part.box(image.size)
    cut = image if box == (0, 0, *image.size) else image.crop(box)
    buffer = io.BytesIO()
    how = {"lossless": True, "quality": 30} if quality is None else {"quality": quality}
    cut.save(buffer, "WEBP", method=_METHOD, exact=True, icc_profile=image.info.get("icc_profile"), **how)
    return Packed(buffer.getvalue(), cut.size, image.size, "A" in image.mode)
