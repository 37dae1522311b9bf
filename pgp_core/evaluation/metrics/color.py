"""Colour error: how far a picture's colours are from the reference's, as eyes see it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..extras import extra
from .pictures import strips, two


def delta_e(result: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Mean CIEDE2000 over the pixels; sRGB, D65. 0 is equal, about 1 can just be seen side by side.

    Raises:
        PGPError: if the two are not RGB pictures of one size, or scikit-image is missing.
    """
    a, b = two(result, reference)
    color = extra("skimage.color")
    total = 0.0
    for s in strips(len(a)):
        # Beyond [0, 1] there is no colour that a file could hold.
        lab = (color.rgb2lab(np.clip(p[s], 0, 1)) for p in (a, b))
        total += float(np.sum(color.deltaE_ciede2000(*lab)))
    return total / (a.shape[0] * a.shape[1])
