"""Libraries that only the evaluation needs."""

from __future__ import annotations

from typing import Any

from ..extras import library


def extra(module: str) -> Any:
    """A module of scikit-image or SciPy.

    Raises:
        PGPError: naming the command that installs them.
    """
    return library(module, "the evaluation", "scikit-image and SciPy", "eval")
