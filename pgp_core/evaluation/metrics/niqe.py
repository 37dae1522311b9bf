"""NIQE, after Mittal, Soundararajan and Bovik (2013): how far a picture's statistics are from those of pristine ones.

Written from the paper; where it is silent, as the authors' MATLAB release does: MATLAB's ``imresize`` for the second
scale, edges repeated under the window, ``circshift`` within blocks, and what MATLAB makes of a block without texture.
The model of pristine pictures is the release's (``pgp_core/assets/niqe``). Luma is that of full range, rounded to whole
levels, as in the tables of the field.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import PGPError
from ..extras import extra
from .luma import luma, whole
from .pictures import Array, picture, size, strips

#: Side of a block at the picture's own scale.
BLOCK = 96
#: Its window is 7x7, a Gaussian of this many pixels.
SIGMA = 7 / 6
_REACH = 3
#: Neighbours that a coefficient is multiplied with: below or right, as ``(rows, columns)``.
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))

MODEL = Path(__file__).parents[2] / "assets" / "niqe" / "niqe_pris_params.npz"


def niqe(rgb: npt.ArrayLike) -> float:
    """NIQE of a picture alone; less is better, HQ photographs have 3 to 7.

    Only whole blocks of 96x96 count, from the upper left.

    Args:
        rgb: ``(H, W, 3)`` in [0, 1].

    Raises:
        PGPError: if there are fewer than two blocks, or fewer than two have any texture: then there is no figure.
    """
    full = picture(rgb)
    rows, columns = full.shape[0] // BLOCK, full.shape[1] // BLOCK
    if rows * columns < 2:
        raise PGPError(
            f"NIQE compares blocks of {BLOCK}x{BLOCK} pixels and needs two of them, so at least {BLOCK}x{2 * BLOCK}; "
            f"this picture has {size(full)}"
        )
    y = np.empty((rows * BLOCK, columns * BLOCK))
    for s in strips(len(y)):
        y[s] = whole(255 * luma(full[s, : y.shape[1]]))
    # A block is a row: 18 features of each scale.
    features = np.concatenate([_features(y, BLOCK), _features(_halve(y), BLOCK // 2)], axis=1)
    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) < 2:
        raise PGPError("NIQE has no figure for a picture without texture: hardly any of its blocks has any")
    mean, covariance = _model()
    # As the release has it: the mean is of every figure there is, the covariance of blocks that have all.
    distance = np.nanmean(features, axis=0) - mean
    spread = np.linalg.pinv((covariance + np.cov(complete, rowvar=False)) / 2)
    return float(np.sqrt(max(0.0, float(distance @ spread @ distance))))


@lru_cache(maxsize=1)
def _model() -> tuple[Array, Array]:
    """Mean and covariance of the features of pristine pictures."""
    with np.load(MODEL, allow_pickle=False) as file:
        return file["mu_pris_param"].reshape(-1).astype(np.float64), file["cov_pris_param"].astype(np.float64)


def _features(y: Array, block: int) -> Array:
    """``(blocks, 18)``: how the normalised luma and its products with neighbours are distributed; a row of blocks is
    worked on at a time."""
    return np.concatenate([_of_row(c, block) for c in _normalised(y, block)])


def _normalised(y: Array, block: int) -> Iterator[Array]:
    """Luma less its local mean, over its local deviation plus 1: a row of blocks, ``(block, W)``, after the other."""
    for top in range(0, len(y), block):
        bottom = top + block
        part = y[max(0, top - _REACH) : bottom + _REACH]
        missing = (max(0, _REACH - top), max(0, bottom + _REACH - len(y)))
        part = np.pad(part, (missing, (_REACH, _REACH)), mode="edge")
        mean = _window(part)
        deviation = np.sqrt(np.abs(_window(part * part) - mean * mean))
        yield (part[_REACH:-_REACH, _REACH:-_REACH] - mean) / (deviation + 1)


def _window(part: Array) -> Array:
    """The Gaussian's means, without the border of 3."""
    correlate1d = extra("scipy.ndimage").correlate1d
    inner = slice(_REACH, -_REACH)
    return np.asarray(correlate1d(correlate1d(part, _weights(), 0)[inner], _weights(), 1)[:, inner])


@lru_cache(maxsize=1)
def _weights() -> Array:
    """The window along an axis.

    The tables of the field are made with weights in float32, which sum up to 1 + 1.1e-8. That matters where a picture
    is quite flat, as where it is overexposed: nothing else is left there, and all its coefficients have one sign, where
    exact weights leave what the sums' last bits happen to be. NIQE counts how many are on either side of zero.
    """
    distance = np.arange(-_REACH, _REACH + 1)
    weights = np.exp(-(distance**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    return np.asarray(weights * np.sqrt(np.outer(weights, weights).astype(np.float32).sum(dtype=np.float64)))


def _of_row(coefficients: Array, block: int) -> Array:
    blocks = np.ascontiguousarray(coefficients.reshape(block, -1, block).swapaxes(0, 1))
    shape, left, right, _ = _fit(blocks)
    found = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        shape, left, right, ratio = _fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        found += [shape, (right - left) * ratio, left, right]
    return np.stack(found, axis=1)


def _fit(samples: Array) -> tuple[Array, Array, Array, Array]:
    """An asymmetric generalised Gaussian for each ``(n, h, w)``, by matching moments.

    Returns:
        Shape, left and right scale, and Γ(2/shape) / Γ(1/shape), each ``(n,)``. Without values on both sides the
        scales are NaN, and the shape is the smallest, which is where MATLAB's ``min`` of NaNs points.
    """
    shapes, moment, scale, ratio = _table()
    flat = samples.reshape(len(samples), -1)
    left, right = (np.einsum("ij,ij->i", side, side) for side in (np.minimum(flat, 0), np.maximum(flat, 0)))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        left_deviation = np.sqrt(left / np.count_nonzero(flat < 0, axis=1))
        right_deviation = np.sqrt(right / np.count_nonzero(flat > 0, axis=1))
        g = left_deviation / right_deviation
        r = np.abs(flat).mean(axis=1) ** 2 / ((left + right) / flat.shape[1])
        wanted = r * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
        # The table rises, so what is nearest stands on one of the two sides of where the value belongs.
        after = np.clip(np.searchsorted(moment, wanted), 1, len(moment) - 1)
        nearest = np.where(wanted - moment[after - 1] <= moment[after] - wanted, after - 1, after)
    nearest = np.where(np.isnan(wanted), 0, nearest)
    return shapes[nearest], left_deviation * scale[nearest], right_deviation * scale[nearest], ratio[nearest]


@lru_cache(maxsize=1)
def _table() -> tuple[Array, Array, Array, Array]:
    """Shapes from 0.2 to 10 in steps of 0.001; for each Γ(2/a)² / (Γ(1/a) Γ(3/a)), √(Γ(1/a) / Γ(3/a)) and
    Γ(2/a) / Γ(1/a)."""
    gamma = extra("scipy.special").gamma
    shapes = np.arange(200, 10_001) / 1000
    one, two, three = (gamma(n / shapes) for n in (1, 2, 3))
    return shapes, two**2 / (one * three), np.sqrt(one / three), two / one


def _halve(y: Array) -> Array:
    """Half the size by MATLAB's ``imresize``: bicubic, widened against aliasing, edges mirrored. Even sides."""
    distance = (np.arange(8) - 3.5) / 2
    x = np.abs(distance)
    weights = np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2)
    weights /= weights.sum()
    return _halve_rows(_halve_rows(y, weights).T, weights).T


def _halve_rows(y: Array, weights: Array) -> Array:
    padded = np.pad(y, ((3, 3), (0, 0)), mode="symmetric")
    rows = len(y) // 2
    out = np.zeros((rows, y.shape[1]))
    for tap, weight in enumerate(weights):
        out += weight * padded[tap : tap + 2 * rows : 2]
    return out
