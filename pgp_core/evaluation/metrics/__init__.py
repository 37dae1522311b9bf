"""Metrics: of a result against its HQ picture, against its LQ picture, and of a picture alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...errors import PGPError
from .against_hq import flat_noise, gmsd, haarpsi, luma, psnr_y, sharpness, ssim, studio_luma
from .metric import Metric, known

__all__ = [
    "AGAINST_HQ",
    "METRICS",
    "Metric",
    "flat_noise",
    "gmsd",
    "haarpsi",
    "luma",
    "psnr_y",
    "score",
    "sharpness",
    "ssim",
    "studio_luma",
]

#: Every metric by its name, in the order of tables.
METRICS: dict[str, Metric] = known(
    Metric("psnr_y", "PSNR-Y (dB)", "hq", "high", 2, "PSNR of studio-range luma.", psnr_y),
    Metric("ssim", "SSIM", "hq", "high", 4, "SSIM of studio-range luma.", ssim),
    Metric("haarpsi", "HaarPSI", "hq", "high", 4, "HaarPSI of colour pictures.", haarpsi),
    Metric("gmsd", "GMSD", "hq", "low", 4, "Deviation of gradient magnitude similarity.", gmsd),
    Metric("sharpness", "sharpness", "hq", 1.0, 2, "Mean |Laplacian| of luma over HQ's.", sharpness),
    Metric("flat_noise", "flat noise", "hq", 0.0, 2, "How much noisier flat places are than HQ's.", flat_noise),
)

#: What the tables of the documentation hold.
AGAINST_HQ = ("psnr_y", "ssim", "haarpsi", "gmsd", "sharpness", "flat_noise")


def score(result: npt.ArrayLike, hq: npt.ArrayLike, names: Sequence[str] | None = None) -> dict[str, float]:
    """Several metrics at once.

    Args:
        names: which of :data:`METRICS`; :data:`AGAINST_HQ` by default. All compare with HQ.

    Raises:
        PGPError: if the two are not RGB pictures of one size, or a library is missing.
    """
    a, b = np.asarray(result, np.float64), np.asarray(hq, np.float64)
    if a.shape != b.shape or a.ndim != 3 or a.shape[2] != 3:
        raise PGPError(f"a result of shape {a.shape} cannot be compared with an HQ picture of shape {b.shape}")
    found = {}
    for name in names or AGAINST_HQ:
        measure = METRICS[name].measure
        assert measure is not None
        found[name] = float(measure(a, b))
    return found
