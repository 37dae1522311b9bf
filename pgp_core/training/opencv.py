"""OpenCV, which only training's degradation needs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ..extras import library


@lru_cache(maxsize=1)
def opencv() -> Any:
    """The module ``cv2`` on one thread: crops are made in several processes, whose threads would fight.

    Raises:
        PGPError: naming the command that installs it.
    """
    cv2 = library("cv2", "the second-order degradation", "OpenCV", "train")
    cv2.setNumThreads(0)
    return cv2
