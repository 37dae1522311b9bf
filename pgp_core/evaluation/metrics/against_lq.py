"""How far a result has left its input, see :mod:`pgp_core.images.faithfulness`; no HQ picture is needed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...images.faithfulness import compare


def faithfulness_db(result: npt.ArrayLike, lq: npt.ArrayLike) -> float:
    """PSNR in dB of the result, brought down to its LQ picture's size, against that; 100 for equal ones.

    Args:
        result: RGB ``(H, W, 3)`` in [0, 1].
        lq: ``(h, w, 3)``, likewise.

    Raises:
        PGPError: if they have other proportions.
    """
    return compare(np.asarray(result), np.asarray(lq)).db


def faithfulness_delta_e(result: npt.ArrayLike, lq: npt.ArrayLike) -> float:
    """Mean CIEDE2000, otherwise as :func:`faithfulness_db`."""
    return compare(np.asarray(result), np.asarray(lq)).delta_e
