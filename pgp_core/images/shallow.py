"""Pictures of 8 bits, by Pillow."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from . import colour

GREY = ("1", "L", "LA", "La")
Levels = npt.NDArray[Any]


@contextlib.contextmanager
def opened(source: BinaryIO, formats: tuple[str, ...]) -> Iterator[Any]:
    """Open a picture as one of these formats.

    Raises:
        whatever Pillow raises.
    """
    with warnings.catch_warnings():
        # Large, but not as large as Pillow's limit, beyond which it raises; and damaged tags, which are not used.
        warnings.simplefilter("ignore")
        with Image.open(source, formats=formats) as file:
            yield file


def frames(file: Any) -> int:
    """How many pictures it holds; 1 if that cannot be found out."""
    with contextlib.suppress(Exception):
        return max(1, int(getattr(file, "n_frames", 1)))
    return 1


def split(image: Image.Image, icc: bytes | None, white: Any = None) -> tuple[Levels, Levels | None, bytes | None]:
    """Colours as ``(H, W, 1 or 3)``, alpha as ``(H, W)`` or None, and the profile that fits the colours.

    Grey stays grey. Palettes become RGB. CMYK and Lab become sRGB by their profile, or Lab's white.
    """
    alpha = None
    if image.has_transparency_data:
        grey = image.mode in GREY
        image = image.convert("LA" if grey and image.mode != "1" else "RGBA")
        alpha = np.asarray(image.getchannel("A"))
        image = image.convert("L" if grey else "RGB")
    elif image.mode in GREY:
        image = image.convert("L")
    elif image.mode in ("CMYK", "LAB"):
        image, icc = colour.to_srgb(image, icc, white), None
    else:
        image = image.convert("RGB")
    pixels = np.asarray(image)
    return (pixels[..., None] if pixels.ndim == 2 else pixels), alpha, icc
