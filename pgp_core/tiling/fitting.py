"""Which tile size fits in memory: try one, halve it when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from .grid import STEP, Tile, grid

#: Latent positions below which a tile is not halved again: what then runs out of memory is something else.
LEAST = 32

T = TypeVar("T")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        said in text for said in ("out of memory", "not enough memory", "can't allocate memory", "alloc_cpu")
    )


class Fitting:
    """A tile size that comes down to what fits, and stays there for the rest of a run.

    Args:
        tile: side to begin with in latent positions; None for no tiles as long as that fits.
        overlap: in latent positions. Tiles of less than twice as much get half a tile.
        halved: told the new side once it has been found to be too large, in latent positions.
        free: called before another attempt, to give memory back.
    """

    def __init__(
        self,
        tile: int | None,
        overlap: int,
        halved: Callable[[int], None] = lambda _: None,
        free: Callable[[], None] = lambda: None,
    ):
        self.tile, self._overlap, self._halved, self._free = tile, overlap, halved, free

    @property
    def overlap(self) -> int:
        """What neighbours share, in latent positions, at the present size."""
        if self.tile is None:
            return self._overlap
        return min(self._overlap, self.tile // 2 // STEP * STEP)

    def tiles(self, height: int, width: int) -> list[Tile]:
        """The tiles of a latent, at the present size."""
        if self.tile is None:
            return [Tile(0, 0, height, width, (height, width))]
        return grid(height, width, self.tile, self.overlap)

    def run(self, height: int, width: int, attempt: Callable[[list[Tile]], T]) -> T:
        """``attempt(tiles)``; when it runs out of memory, again with tiles half as large.

        Raises:
            the error itself, if tiles cannot get smaller.
        """
        while True:
            try:
                return attempt(self.tiles(height, width))
            except (MemoryError, RuntimeError) as error:
                side = max(height, width) if self.tile is None else min(self.tile, max(height, width))
                smaller = max(LEAST, side // 2 // STEP * STEP)
                if not out_of_memory(error) or smaller >= side:
                    raise
            # After the handler: its traceback holds the tensors of the failed attempt.
            self._free()
            self.tile = smaller
            self._halved(smaller)
