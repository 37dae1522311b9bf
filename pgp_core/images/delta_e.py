"""Differences of colours as eyes see them: CIEDE2000 of sRGB pictures.

After Sharma, Wu and Dalal (2005), "The CIEDE2000 color-difference formula", with all weighting factors 1. White is D65.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Linear sRGB to XYZ, and the white of D65 for 2 degrees.
_XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
_WHITE = np.array([0.95047, 1.0, 1.08883])
_FAR = 25.0**7


def delta_e(one: npt.ArrayLike, other: npt.ArrayLike) -> Array:
    """CIEDE2000 of every pixel.

    Args:
        one, other: sRGB, ``(..., 3)`` in [0, 1].

    Returns:
        ``(...)`` float64. 0 is equal; about 1 can just be seen side by side.
    """
    (l1, a1, b1), (l2, a2, b2) = (np.moveaxis(lab(rgb), -1, 0) for rgb in (one, other))
    c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(c7 / (c7 + _FAR))
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.arctan2(b1, a1), np.arctan2(b2, a2)
    # Grey has no hue: its product is 0, which leaves no difference, and the mean is the other's hue.
    coloured = c1 * c2 > 0
    turn = np.where(coloured, (h2 - h1 + np.pi) % (2 * np.pi) - np.pi, 0)
    mean_h = np.where(coloured, h1 + turn / 2, np.where(c1 > 0, h1, h2))
    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    t = (
        1
        - 0.17 * np.cos(mean_h - np.pi / 6)
        + 0.24 * np.cos(2 * mean_h)
        + 0.32 * np.cos(3 * mean_h + np.pi / 30)
        - 0.20 * np.cos(4 * mean_h - np.radians(63))
    )
    from_middle = (mean_l - 50) ** 2
    lightness = (l2 - l1) / (1 + 0.015 * from_middle / np.sqrt(20 + from_middle))
    chroma = (c2 - c1) / (1 + 0.045 * mean_c)
    hue = 2 * np.sqrt(c1 * c2) * np.sin(turn / 2) / (1 + 0.015 * mean_c * t)
    blue = np.degrees(mean_h) % 360 - 275
    c7 = mean_c**7
    rotation = -2 * np.sqrt(c7 / (c7 + _FAR)) * np.sin(np.radians(60) * np.exp(-((blue / 25) ** 2)))
    found: Array = np.sqrt(np.maximum(lightness**2 + chroma**2 + hue**2 + rotation * chroma * hue, 0))
    return found


def lab(rgb: npt.ArrayLike) -> Array:
    """CIE L*a*b*, ``(..., 3)`` float64, of sRGB in [0, 1]."""
    x = np.asarray(rgb, np.float64)
    linear = np.where(x <= 0.04045, x / 12.92, ((np.maximum(x, 0) + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T / _WHITE
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x_, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x_ - y), 200 * (y - z)], -1)
