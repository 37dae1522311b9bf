"""What the odd files show, and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 14, 10


@dataclass(frozen=True)
class Odd:
    """One odd file.

    Attributes:
        name: in its folder.
        shows: ``(H, W, 3)`` in [0, 255], upright, of what can be seen; None if the file cannot be read.
        why: a word that the error says; "" for any.
        result: the stem of its result; None for the file's own.
        bits: of the result's channels.
    """

    name: str
    shows: np.ndarray | None
    why: str = ""
    result: str | None = None
    bits: int = 8


def scene(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Smooth, and another colour in each corner: turned or mirrored it is another picture.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    corners = np.array([[[200, 70, 60], [60, 180, 80]], [[70, 80, 190], [190, 180, 90]]], float)
    top = corners[0, 0] * (1 - x[..., None]) + corners[0, 1] * x[..., None]
    bottom = corners[1, 0] * (1 - x[..., None]) + corners[1, 1] * x[..., None]
    return np.rint(top * (1 - y[..., None]) + bottom * y[..., None]).astype(np.uint8)


def grey_scene() -> np.ndarray:
    """The scene in grey, ``(HEIGHT, WIDTH)`` uint8."""
    return np.asarray(Image.fromarray(scene()).convert("L"))


def threefold(grey: np.ndarray) -> np.ndarray:
    """Grey as RGB."""
    return np.repeat(grey[..., None], 3, -1)


#: How a picture is to be stored so that its orientation, 1 to 8, turns it upright: the inverse of what EXIF 2.3 says
#: of rows and columns ("6: the 0th row is the visual right-hand side, the 0th column the visual top").
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1)[::-1, ::-1],
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1)[::-1, ::-1],
}
