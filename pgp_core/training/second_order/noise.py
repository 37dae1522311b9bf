"""Noise of cameras: Gaussian and Poisson."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from ..opencv import opencv
from .recipe import Noise

Floats = npt.NDArray[np.float32]

#: Photons of a white pixel at level 1. Real-ESRGAN takes the picture's number of distinct levels, rounded up to a power
#: of two: 256 for nearly all photographs, but 16 for a bit of sky, which then drowns in noise. We take 256 for all.
PHOTONS = 256
_BITS = 12
_QUANTILES = 2**_BITS


def add_noise(x: Floats, noise: Noise, rng: np.random.Generator) -> Floats:
    """``x`` with noise, clipped to [0, 255].

    Args:
        x: ``(H, W, 3)`` BGR in [0, 255].
    """
    cv2 = opencv()
    if noise.kind == "poisson":
        added = _poisson(cv2.cvtColor(x, cv2.COLOR_BGR2GRAY) if noise.grey else x, rng)
    else:
        added = _normal(x.shape[:2] if noise.grey else x.shape, rng)
    if noise.grey:
        added = cv2.cvtColor(added, cv2.COLOR_GRAY2BGR)
    added *= np.float32(noise.level)
    added += x
    return np.clip(added, 0, 255, out=added)


def levels(x: Floats) -> npt.NDArray[np.uint8]:
    """Rounded and cut to 8 bits."""
    cv2 = opencv()
    rounded: npt.NDArray[np.uint8] = cv2.add(x, np.zeros(4), dtype=cv2.CV_8U)
    return rounded


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Standard normal; PyTorch makes it three times as fast as numpy."""
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    normal: Floats = torch.randn(shape, generator=generator).numpy()
    return normal


def _poisson(x: Floats, rng: np.random.Generator) -> Floats:
    """Shot noise of the levels of ``x`` rounded to 8 bits, in levels."""
    index = levels(x).astype(np.intp)
    index *= _QUANTILES
    # Four of 16 bits in each of 64: what their upper bits say is the quantile.
    random = rng.integers(0, 2**64, -(-x.size // 4), dtype=np.uint64).view(np.uint16)[: x.size].reshape(x.shape)
    index += random >> (16 - _BITS)
    return _table().take(index)


@lru_cache(maxsize=1)
def _table() -> Floats:
    """``(256, quantiles)``: Poisson noise of each level at evenly spaced probabilities, in levels of 255.

    Looking a random quantile up is ten times as fast as numpy's exact sampling; what lies beyond 1/8192 of either
    tail is left out.
    """
    probability = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    table = np.zeros((256, _QUANTILES), np.float32)
    count = np.arange(2 * PHOTONS)
    log_factorial = np.array([math.lgamma(k + 1) for k in count])
    for level in range(1, 256):
        mean = level * PHOTONS / 255
        cumulative = np.cumsum(np.exp(count * math.log(mean) - mean - log_factorial))
        table[level] = np.searchsorted(cumulative, probability) * (255 / PHOTONS) - level
    return table
