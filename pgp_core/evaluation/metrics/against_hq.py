"""How close a result is to its HQ picture, and whether it is as sharp and as clean.

Every function takes ``(result, hq)``: RGB arrays ``(H, W, 3)`` in [0, 1] of one size, and crops no border. They are
written here because no maintained library on NumPy has them:

* HaarPSI, after Reisenhofer, Bosse, Kutyniok and Wiegand (2018), with the authors' settings: C = 30,
  alpha = 4.2, three scales, colour (YIQ, the chroma maps included), averaged over 2x2 and subsampled first;
* GMSD, after Xue, Zhang, Mou and Bovik (2014), with the authors' settings: T = 170 for levels of 255,
  Prewitt gradients, luma only, averaged over 2x2 and subsampled first;
* sharpness and flat noise, to be read together: grain counts as sharpness, but shows as noise in flat places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import PGPError
from ..extras import extra
from .luma import luma
from .pictures import Array, size, two

#: Side of the patches in which flat noise is measured, and the share of them that counts as flat.
FLAT_PATCH = 16
FLAT_SHARE = 0.1


def haarpsi(result: npt.ArrayLike, hq: npt.ArrayLike) -> float:
    """HaarPSI of colour pictures, 0 to 1, more is better."""
    c, alpha = 30.0, 4.2
    x, y = (_halve(255 * _yiq(p)) for p in two(result, hq))
    similarities, weights = [], []
    for axis in (0, 1):
        fine = [_similarity(_haar(x[..., 0], s, axis), _haar(y[..., 0], s, axis), c) for s in (2, 4)]
        similarities.append((fine[0] + fine[1]) / 2)
        weights.append(np.maximum(_haar(x[..., 0], 8, axis), _haar(y[..., 0], 8, axis)))
    chroma = _similarity(np.abs(_average(x[..., 1:])), np.abs(_average(y[..., 1:])), c)
    similarities.append(chroma.mean(axis=-1))
    weights.append((weights[0] + weights[1]) / 2)
    s, w = np.stack(similarities), np.stack(weights)
    if not w.any():  # both are black
        return 1.0
    mean = float(np.sum(w / (1 + np.exp(-alpha * s))) / np.sum(w))
    return float((np.log(mean / (1 - mean)) / alpha) ** 2)


def gmsd(result: npt.ArrayLike, hq: npt.ArrayLike) -> float:
    """GMSD of luma, 0 for equal pictures, less is better."""
    ndimage = extra("scipy.ndimage")

    def gradient(picture: npt.ArrayLike) -> Array:
        y = _halve(255 * luma(picture))
        return np.hypot(*(ndimage.prewitt(y, axis, mode="constant") / 3 for axis in (0, 1)))

    a, b = two(result, hq)
    return float(np.std(_similarity(gradient(a), gradient(b), 170.0)))


def sharpness(result: npt.ArrayLike, hq: npt.ArrayLike) -> float:
    """Mean |Laplacian| (4 neighbours) of luma over that of HQ: below 1 is softer, above 1 sharper or grainier.
    NaN if HQ has no detail at all.

    Raises:
        PGPError: if a side is smaller than 3 pixels.
    """
    a, b = two(result, hq)
    if min(a.shape[:2]) < 3:
        raise PGPError(f"sharpness needs a picture of at least 3x3 pixels, not {size(a)}")
    ours, theirs = (float(np.mean(np.abs(_laplacian(luma(p))))) for p in (a, b))
    return ours / theirs if theirs else float("nan")


def flat_noise(result: npt.ArrayLike, hq: npt.ArrayLike) -> float:
    """How much noisier flat places are than in HQ, in levels of 255; below 0 if they are smoother.

    The flat places are the tenth of HQ's 16x16 patches (on a grid) with the lowest standard deviation of
    luma; the score is the mean of that deviation in the result minus its mean in HQ.

    Raises:
        PGPError: if a picture is smaller than one patch.
    """
    ours, theirs = (_patches(255 * luma(p)).std(axis=1) for p in two(result, hq))
    flat = np.argsort(theirs, kind="stable")[: max(1, round(FLAT_SHARE * len(theirs)))]
    return float(np.mean(ours[flat]) - np.mean(theirs[flat]))


def _yiq(rgb: npt.ArrayLike) -> Array:
    return np.asarray(extra("skimage.color").rgb2yiq(np.asarray(rgb, np.float64)))


def _similarity(a: Array, b: Array, c: float) -> Array:
    return np.asarray((2 * a * b + c) / (a**2 + b**2 + c))


def _average(picture: Array) -> Array:
    """Mean over 2x2 pixels, zeros beyond the right and lower border."""
    return _along(_along(picture, [0.5, 0.5], 0), [0.5, 0.5], 1)


def _halve(picture: Array) -> Array:
    """Half the size, a pixel the mean of 2x2: "the typical distance between a picture and its viewer"."""
    rows, columns = picture.shape[:2]
    # Zeros beyond the right and lower border of odd sides, as in _average.
    even = np.pad(picture, [(0, rows % 2), (0, columns % 2), *[(0, 0)] * (picture.ndim - 2)])
    below = even[::2] + even[1::2]
    return (below[:, ::2] + below[:, 1::2]) / 4


def _haar(picture: Array, size: int, axis: int) -> Array:
    """Magnitudes of a scale's undecimated Haar coefficients: a difference along ``axis``, a sum across it."""
    half = [1.0] * (size // 2)
    difference = _along(picture, half + [-h for h in half], axis)
    return np.abs(_along(difference, [1.0 / size] * size, 1 - axis))


def _along(picture: Array, weights: Sequence[float], axis: int) -> Array:
    """Correlate along an axis with an even number of weights, zeros outside, placed as MATLAB's ``conv2`` does:
    a pixel and its neighbours before and after, one more after."""
    args: dict[str, Any] = {"axis": axis, "mode": "constant", "origin": -1}
    return np.asarray(extra("scipy.ndimage").correlate1d(picture, weights, **args))


def _laplacian(y: Array) -> Array:
    """Inner pixels only."""
    return y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]


def _patches(y: Array) -> Array:
    """``(patches, pixels)`` on a grid from the upper left; what is left over at the borders is left out."""
    rows, columns = y.shape[0] // FLAT_PATCH, y.shape[1] // FLAT_PATCH
    if rows * columns == 0:
        raise PGPError(
            f"flat noise needs a picture of at least {FLAT_PATCH}x{FLAT_PATCH} pixels, not {y.shape[1]}x{y.shape[0]}"
        )
    grid = y[: rows * FLAT_PATCH, : columns * FLAT_PATCH].reshape(rows, FLAT_PATCH, columns, FLAT_PATCH)
    return grid.swapaxes(1, 2).reshape(rows * columns, -1)
