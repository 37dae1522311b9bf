"""Arrays that are mapped from a file, sent to another process by the file's name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Mapped:
    """Where an array lies.

    Attributes:
        path: of the file.
        offset: of the first element, bytes.
        shape, dtype: of the array, C order.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def open(self) -> np.ndarray:
        """The array, mapped for reading."""
        return np.memmap(self.path, np.dtype(self.dtype), "r", self.offset, self.shape)


def mapped(array: np.ndarray) -> Mapped | None:
    """Where ``array``, or what it is a part of, was mapped from; None if it was not, or is not in one piece."""
    if not isinstance(array, np.memmap) or array.filename is None or not array.flags.c_contiguous:
        return None
    whole = array
    while isinstance(whole.base, np.memmap):
        whole = whole.base
    if not np.may_share_memory(array, whole):
        return None
    offset = whole.offset + array.ctypes.data - whole.ctypes.data
    return Mapped(Path(array.filename), offset, array.shape, array.dtype.str)
