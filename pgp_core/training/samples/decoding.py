"""Pictures from disk as the network sees them, some of them kept."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from ...batch.failures import one_picture
from ...images.picture import Picture
from ...images.reading import open_picture


def read_rgb(path: Path) -> Image.Image:
    """8 bits, RGB, upright; grey is repeated, 16 bits become 8, what is transparent lies on white.

    Raises:
        PictureError: whatever goes wrong; see :func:`pgp_core.images.reading.open_picture`.
    """
    with one_picture(path):
        return _plain(path) or _flattened(open_picture(path))


def _plain(path: Path) -> Image.Image | None:
    """A picture that needs nothing but decoding, without the copies that others take; else None, also if broken."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("JPEG", "PNG")) as file:
                if file.format not in ("JPEG", "PNG") or file.mode != "RGB" or ";16" in str(file.tile):
                    return None
                file.load()
                upright = file.getexif().get(ExifTags.Base.Orientation, 1) == 1
                return file if upright and not file.has_transparency_data else None
    except Exception:
        # The careful way says what is wrong, or finds that only something beside the pixels is.
        return None


def _flattened(picture: Picture) -> Image.Image:
    x = picture.pixels.astype(np.float32) / picture.white
    if picture.alpha is not None:
        alpha = picture.alpha[..., None].astype(np.float32) / picture.white
        x = x * alpha + (1 - alpha)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(np.rint(x * 255).astype(np.uint8), (*x.shape[:2], 3))))


class Shelf:
    """Decoded pictures: the first ones that fit, and the last one.

    Pictures come in a new order in each epoch. Whichever rule throws pictures out, of a folder that does not fit no
    more can be had from memory than the share that does; so nothing is thrown out.

    Args:
        limit: bytes of pictures kept; each process that makes crops keeps its own.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._kept: dict[Path, Image.Image] = {}
        self._size = 0
        self._last: tuple[Path, Image.Image] | None = None

    def picture(self, path: Path) -> Image.Image:
        """A picture as :func:`read_rgb` reads it, perhaps one that was kept."""
        if path in self._kept:
            return self._kept[path]
        if self._last is None or self._last[0] != path:
            picture = read_rgb(path)
            self._last = path, picture
            # Pillow stores RGB in four bytes.
            size = 4 * picture.width * picture.height
            if self._size + size <= self.limit:
                self._kept[path] = picture
                self._size += size
        return self._last[1]

    def __reduce__(self) -> Any:
        """A new process starts with an empty shelf."""
        return Shelf, (self.limit,)
