"""Metrics: of a result against its HQ picture, against its LQ picture, and of a picture alone.

Importing this imports neither PyTorch nor SciPy: worker processes measure without the one, and whoever only wants to
know what there is needs none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy.typing as npt

from ...errors import PGPError
from .against_hq import flat_noise, gmsd, haarpsi, sharpness
from .against_lq import faithfulness_db, faithfulness_delta_e
from .color import delta_e
from .field import psnr_y, ssim
from .luma import luma, studio_luma
from .metric import Metric, known
from .niqe import niqe
from .pictures import two

__all__ = [
    "AGAINST_HQ",
    "METRICS",
    "Metric",
    "delta_e",
    "faithfulness_db",
    "faithfulness_delta_e",
    "flat_noise",
    "gmsd",
    "haarpsi",
    "luma",
    "niqe",
    "psnr_y",
    "score",
    "sharpness",
    "ssim",
    "studio_luma",
]

#: Every metric by its name, in the order of tables. Those that are networks have no ``measure`` here:
#: :func:`pgp_core.evaluation.metrics.networks.load` makes it.
METRICS: dict[str, Metric] = known(
    Metric("psnr_y", "PSNR-Y (dB)", "hq", "high", 2, "Error of studio-range luma, peak 255.", psnr_y),
    Metric("ssim", "SSIM", "hq", "high", 4, "Local structure of studio-range luma in whole levels.", ssim),
    Metric("lpips", "LPIPS", "hq", "low", 4, "Distance of AlexNet's features, version 0.1.", network=True),
    Metric("dists", "DISTS", "hq", "low", 4, "Structure and texture of VGG-16's features.", network=True),
    Metric("niqe", "NIQE", None, "low", 2, "How far statistics are from pristine photographs'.", niqe),
    Metric("musiq", "MUSIQ", None, "high", 2, "A network taught by people's opinions, KonIQ-10k.", network=True),
    Metric("maniqa", "MANIQA", None, "high", 4, "A network taught by people's opinions, PIPAL.", network=True),
    Metric("clipiqa+", "CLIP-IQA+", None, "high", 4, "CLIP asked with learned prompts, ViT-L/14.", network=True),
    Metric("clipiqa", "CLIP-IQA", None, "high", 4, "CLIP asked whether a photo is good or bad.", network=True),
    Metric("haarpsi", "HaarPSI", "hq", "high", 4, "Similarity of Haar wavelets, in colour.", haarpsi),
    Metric("gmsd", "GMSD", "hq", "low", 4, "Deviation of gradient magnitude similarity.", gmsd),
    Metric("sharpness", "sharpness", "hq", 1.0, 2, "Mean |Laplacian| of luma over HQ's.", sharpness),
    Metric("flat_noise", "flat noise", "hq", 0.0, 2, "How much noisier flat places are than HQ's.", flat_noise),
    Metric("delta_e", "ΔE", "hq", "low", 2, "Mean colour error, CIEDE2000.", delta_e),
    Metric(
        "faithfulness_db",
        "faithful (dB)",
        "lq",
        "high",
        1,
        "PSNR at the LQ picture's size.",
        faithfulness_db,
        ranked=False,
    ),
    Metric(
        "faithfulness_delta_e",
        "faithful (ΔE)",
        "lq",
        "low",
        2,
        "CIEDE2000 at the LQ picture's size.",
        faithfulness_delta_e,
        ranked=False,
    ),
)

#: What the tables of the documentation hold.
AGAINST_HQ = ("psnr_y", "ssim", "haarpsi", "gmsd", "sharpness", "flat_noise")


def score(result: npt.ArrayLike, hq: npt.ArrayLike, names: Sequence[str] | None = None) -> dict[str, float]:
    """Several metrics at once.

    Args:
        result, hq: RGB arrays ``(H, W, 3)`` in [0, 1] of one size.
        names: of :data:`METRICS` that are no networks and look at the picture alone or at HQ; :data:`AGAINST_HQ` by
            default.

    Raises:
        PGPError: if the two are not RGB pictures of one size, a metric has no figure for them, a library is missing,
            or a name is none of these.
    """
    a, b = two(result, hq)
    found = {}
    for name in names or AGAINST_HQ:
        metric = METRICS.get(name)
        if metric is None or metric.measure is None or metric.reference == "lq":
            raise PGPError(f"{name!r} is no metric of two arrays: there are {', '.join(_of_arrays())}")
        found[name] = float(metric.measure(a, b) if metric.reference else metric.measure(a))
    return found


def _of_arrays() -> list[str]:
    return [m.name for m in METRICS.values() if m.measure is not None and m.reference != "lq"]
