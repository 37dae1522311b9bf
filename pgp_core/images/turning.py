"""Pictures upright, after what cameras say of how they were held."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Orientation to whether rows and columns are exchanged, and which axes are reversed afterwards.
_TURNS = {
    1: (False, ()),
    2: (False, (1,)),
    3: (False, (0, 1)),
    4: (False, (0,)),
    5: (True, ()),
    6: (True, (1,)),
    7: (True, (0, 1)),
    8: (True, (0,)),
}


def upright(levels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Turn ``(H, W, ...)`` as EXIF's orientation, 1 to 8, says."""
    exchanged, reversed_ = _TURNS[orientation]
    if exchanged:
        levels = levels.swapaxes(0, 1)
    return np.ascontiguousarray(np.flip(levels, reversed_))
