"""Pictures as metrics take them: RGB arrays ``(H, W, 3)`` in [0, 1], and two of one size where two are compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...errors import PGPError

Array = npt.NDArray[np.float64]

#: Rows that are worked on at once, so that a large picture needs little more memory than itself, and a small one
#: stays in the processor's cache.
STRIP = 128


def size(picture: npt.ArrayLike) -> str:
    """Width and height for messages: ``640x480``."""
    height, width = np.shape(picture)[:2]
    return f"{width}x{height}"


def picture(rgb: npt.ArrayLike) -> Array:
    """A picture in float64.

    Raises:
        PGPError: if it is not of shape ``(H, W, 3)``, or has no pixels.
    """
    found = np.asarray(rgb, np.float64)
    if found.ndim != 3 or found.shape[2] != 3 or not found.size:
        raise PGPError(f"metrics take RGB pictures of shape (height, width, 3), not {found.shape}")
    return found


def two(result: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Array, Array]:
    """Both in float64.

    Raises:
        PGPError: if one is no RGB picture, or their sizes differ, with both.
    """
    a, b = picture(result), picture(reference)
    if a.shape != b.shape:
        raise PGPError(f"pictures of different sizes cannot be compared: {size(a)} and {size(b)}")
    return a, b


def strips(rows: int, overlap: int = 0) -> Iterator[slice]:
    """Slices of rows that cover a picture; each has ``overlap`` rows of the one before it."""
    for start in range(0, max(1, rows - overlap), STRIP):
        yield slice(start, min(rows, start + STRIP + overlap))
