"""Pictures from disk as the network sees them, some of them kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...images import Picture, open_picture
from .cutting import Pixels


def read_rgb(path: Path) -> Pixels:
    """``(H, W, 3)``, upright; grey is repeated, 16 bits become 8, what is transparent lies on white.

    Raises:
        PictureError: see :func:`pgp_core.images.open_picture`.
    """
    picture = open_picture(path)
    if picture.pixels.dtype == np.uint8 and picture.pixels.shape[-1] == 3 and picture.alpha is None:
        return picture.pixels  # type: ignore[return-value]
    return _flattened(picture)


def _flattened(picture: Picture) -> Pixels:
    x = picture.pixels.astype(np.float32) / picture.white
    if picture.alpha is not None:
        alpha = picture.alpha[..., None].astype(np.float32) / picture.white
        x = x * alpha + (1 - alpha)
    return np.ascontiguousarray(np.broadcast_to(np.rint(x * 255).astype(np.uint8), (*x.shape[:2], 3)))


class Shelf:
    """Decoded pictures: the first ones that fit, and the last one.

    Pictures come in a new order in each epoch. Whichever rule throws pictures out, of a folder that does not fit no
    more can be had from memory than the share that does; so nothing is thrown out.

    Args:
        limit: bytes of pictures kept; each process that makes crops keeps its own.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._kept: dict[Path, Pixels] = {}
        self._size = 0
        self._last: tuple[Path, Pixels] | None = None

    def picture(self, path: Path) -> Pixels:
        """As :func:`read_rgb`."""
        if path in self._kept:
            return self._kept[path]
        if self._last is None or self._last[0] != path:
            pixels = read_rgb(path)
            self._last = path, pixels
            if self._size + pixels.nbytes <= self.limit:
                self._kept[path] = pixels
                self._size += pixels.nbytes
        return self._last[1]

    def __reduce__(self) -> Any:
        """A new process starts with an empty shelf."""
        return Shelf, (self.limit,)
