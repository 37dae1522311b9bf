"""OpenCV, which only training's degradation needs."""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any

from ..errors import PGPError


@lru_cache(maxsize=1)
def opencv() -> Any:
    """The module ``cv2`` on one thread: crops are made in several processes, whose threads would fight.

    Raises:
        PGPError: naming the command that installs it.
    """
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as e:
        raise PGPError(f'the second-order degradation needs OpenCV ({e}): pip install "pgp-diffsr[train]"') from None
    cv2.setNumThreads(0)
    return cv2
