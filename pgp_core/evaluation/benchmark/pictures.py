"""Pictures as they are judged: upright RGB at their full depth, on white where they are transparent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...errors import PictureError
from ...images.finding import check_file
from ...images.picture import Picture
from ...images.reading import open_picture

RGB = npt.NDArray[np.float64]

#: Said of pictures with transparency.
ON_WHITE = "transparent pictures are compared as they look on white"


def read(path: Path) -> Picture:
    """Open a picture; nothing that is no file is waited for.

    Raises:
        PGPError: if it cannot be read.
    """
    check_file(path)
    return open_picture(path)


def rgb(picture: Picture) -> RGB:
    """``(H, W, 3)`` in [0, 1]: 16 bits stay 16, grey is three channels alike, what is transparent lies on white."""
    levels = picture.pixels.astype(np.float64) / picture.white
    if picture.alpha is not None:
        alpha = picture.alpha[..., None].astype(np.float64) / picture.white
        levels = levels * alpha + (1 - alpha)
    return np.repeat(levels, 3, axis=2) if levels.shape[2] == 1 else levels


def transparent(picture: Picture) -> bool:
    """Whether anything can be seen through it."""
    return picture.alpha is not None and int(picture.alpha.min()) < picture.white


def size(picture: Picture) -> tuple[int, int]:
    """Width and height."""
    height, width = picture.pixels.shape[:2]
    return width, height


def check_shapes(lq: tuple[int, int], hq: tuple[int, int]) -> None:
    """Whether an LQ picture can be a smaller copy of its HQ picture, to a pixel of its own.

    Raises:
        PictureError: with both sizes.
    """
    sizes = f"{lq[0]}x{lq[1]} and {hq[0]}x{hq[1]}"
    if lq[0] > hq[0] or lq[1] > hq[1]:
        raise PictureError(f"LQ and HQ picture have {sizes} pixels: the LQ one is larger; are the two swapped?")
    # By as much may the one be off where the other's sides are no multiples.
    low = max(h / (x + 1) for x, h in zip(lq, hq, strict=True))
    high = min(h / max(x - 1, 0.5) for x, h in zip(lq, hq, strict=True))
    if low > high:
        raise PictureError(f"LQ and HQ picture have {sizes} pixels: they are not of one shape")


def same_size(result: tuple[int, int], hq: tuple[int, int]) -> None:
    """Whether a result lies on its HQ picture.

    Raises:
        PictureError: with both sizes.
    """
    if result != hq:
        raise PictureError(f"it has {result[0]}x{result[1]} pixels, its HQ picture {hq[0]}x{hq[1]}")


def bicubic(lq: Picture, width: int, height: int) -> Picture:
    """An LQ picture enlarged by Pillow's bicubic, which is MATLAB's where pictures are enlarged; on white, as deep as
    it is, rounded to whole levels."""
    levels = np.rint(rgb(lq) * lq.white)[..., : lq.pixels.shape[2]]
    # Pillow rounds to 8 bits between the two directions, as everybody's bicubic row does.
    depth = np.uint8 if lq.white == 255 else np.float32
    planes = [
        Image.fromarray(np.ascontiguousarray(plane, depth)).resize((width, height), Image.Resampling.BICUBIC)
        for plane in np.moveaxis(levels, 2, 0)
    ]
    large = np.clip(np.rint(np.stack([np.asarray(p) for p in planes], 2)), 0, lq.white).astype(lq.pixels.dtype)
    return replace(lq, pixels=np.ascontiguousarray(large), alpha=None, frames=1, notes=())
