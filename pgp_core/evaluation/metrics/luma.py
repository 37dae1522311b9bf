"""The two lumas in use, both of BT.601.

PSNR-Y and SSIM take studio range, 16 to 235 of 255 (MATLAB's ``rgb2ycbcr``), because papers on super-resolution do;
its PSNR is 1.3 dB above that of full-range luma. The other metrics take full range (the Y of YIQ), so that their levels
are levels of 255.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .pictures import Array

_STUDIO = np.array([65.481, 128.553, 24.966])
_FULL = np.array([0.299, 0.587, 0.114])


def studio_luma(rgb: npt.ArrayLike) -> Array:
    """``(16 + 65.481 R + 128.553 G + 24.966 B) / 255``, ``(..., 3)`` to ``(...)``, not rounded."""
    return studio_levels(rgb) / 255


def studio_levels(rgb: npt.ArrayLike) -> Array:
    """Studio-range luma in levels of 255, 16 to 235, not rounded."""
    return np.asarray(np.asarray(rgb, np.float64) @ _STUDIO + 16)


def luma(rgb: npt.ArrayLike) -> Array:
    """``0.299 R + 0.587 G + 0.114 B``, ``(..., 3)`` to ``(...)``."""
    return np.asarray(np.asarray(rgb, np.float64) @ _FULL)


def whole(levels: Array) -> Array:
    """Rounded to whole levels, halves upwards.

    A thousandth of all colours lie on a half: what the last bit of a sum says must not decide, for it differs between
    processors.
    """
    return np.floor(levels + (0.5 + 1e-9))
