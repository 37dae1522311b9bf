"""Colour error: how far a picture's colours are from the reference's, as eyes see it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...images.delta_e import delta_e as of_pixels
from .pictures import strips, two


def delta_e(result: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Mean CIEDE2000 over the pixels; sRGB, D65. 0 is equal, about 1 can just be seen side by side.

    Raises:
        PGPError: if the two are not RGB pictures of one size.
    """
    a, b = two(result, reference)
    # Beyond [0, 1] there is no colour that a file could hold.
    total = sum(float(np.sum(of_pixels(np.clip(a[s], 0, 1), np.clip(b[s], 0, 1)))) for s in strips(len(a)))
    return total / (a.shape[0] * a.shape[1])
