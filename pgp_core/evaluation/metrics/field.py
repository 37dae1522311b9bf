"""PSNR and SSIM as papers on super-resolution publish them.

What "on the Y channel" means is not written in those papers. These definitions were found by trial against per-picture
logs that were published with OSEDiff's results (``docs/benchmarks.md``), and give their figures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import PGPError
from ..extras import extra
from .luma import studio_levels, whole
from .pictures import Array, size, strips, two

#: Added to the mean squared error of a peak of 1. The tables of the field have it; it shows above 40 dB, and gives
#: equal pictures 80 dB, so that a mean over pictures stays a number.
EPS = 1e-8

#: SSIM's window and constants, after Wang, Bovik, Sheikh and Simoncelli (2004).
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr_y(result: npt.ArrayLike, hq: npt.ArrayLike) -> float:
    """PSNR of studio-range luma in dB: not rounded, no border cropped, peak 255; 80 dB for equal pictures.

    Raises:
        PGPError: if the two are not RGB pictures of one size.
    """
    a, b = two(result, hq)
    squares = sum(float(np.sum((studio_levels(a[s]) - studio_levels(b[s])) ** 2)) for s in strips(len(a)))
    return -10 * float(np.log10(squares / (a.shape[0] * a.shape[1]) / 255**2 + EPS))


def ssim(result: npt.ArrayLike, hq: npt.ArrayLike) -> float:
    """SSIM of studio-range luma, at most 1, more is better.

    The luma is rounded to whole levels; the window is a Gaussian of 11x11, sigma 1.5, and lies wholly in the picture,
    so that 5 pixels of each border count less; where result and HQ go opposite ways, the term of contrast and structure
    is 0.

    Raises:
        PGPError: if the two are not RGB pictures of one size, at least 11 pixels a side.
    """
    a, b = two(result, hq)
    rows, columns = (n - WINDOW + 1 for n in a.shape[:2])
    if rows < 1 or columns < 1:
        raise PGPError(f"SSIM needs pictures of at least {WINDOW}x{WINDOW} pixels, not {size(a)}")
    total = sum(
        float(np.sum(_similarity(whole(studio_levels(a[s])), whole(studio_levels(b[s])))))
        for s in strips(len(a), WINDOW - 1)
    )
    return total / (rows * columns)


def _similarity(x: Array, y: Array) -> Array:
    """The map of a strip, without its border."""
    mx, my = _blur(x), _blur(y)
    product = mx * my
    squares = mx * mx + my * my
    structure = (2 * (_blur(x * y) - product) + C2) / (_blur(x * x + y * y) - squares + C2)
    return np.maximum(structure, 0) * (2 * product + C1) / (squares + C1)


def _blur(picture: Array) -> Array:
    correlate1d = extra("scipy.ndimage").correlate1d
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(distance**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    edge = slice(WINDOW // 2, -(WINDOW // 2))
    return np.asarray(correlate1d(correlate1d(picture, weights, 0)[edge], weights, 1)[:, edge])
