"""Which tile size to begin with where none was chosen."""

from __future__ import annotations

import math

from .grid import STEP

#: Latent positions along a side up to which a latent that fits is taken whole: 3072 pixels of SDXL.
#:
#: Attention costs the square of the positions. By multiply-accumulates a whole latent of SDXL costs 1.5 times what
#: tiles of :data:`MOST` cost at this size, and nearly six times as much at 1024 positions (8192 pixels).
WHOLE = 384
#: Positions along a side of the largest tile: 1280 pixels of SDXL. Larger ones overlap less for their size, but
#: their attention costs more. By the same count this is SDXL's cheapest, a tenth above nano's, and 512 costs three
#: times as much.
MOST = 160


def automatic(height: int, width: int, overlap: int, room: float | None) -> int | None:
    """Side of the tiles to begin with, in latent positions; None for the whole latent.

    Not larger than what covers the latent with as many tiles as the largest that fit.

    Args:
        height, width: of the latent.
        overlap: what neighbours share, in latent positions.
        room: positions that memory should hold at a time; None where nothing says.
    """
    area = height * width
    if area <= WHOLE**2 and (room is None or area <= room):
        return None
    # Who asks for much overlap gets it.
    most = max(MOST, 2 * overlap)
    side = most if room is None else min(most, math.isqrt(max(0, int(room))))
    side = max(STEP, side // STEP * STEP)
    shared = min(overlap, side // 2)
    tiles = [max(1, -(-(n - shared) // (side - shared))) for n in (height, width)]
    needed = max(-(-(n - shared) // k) + shared for n, k in zip((height, width), tiles, strict=True))
    # Smaller ones would share less.
    return min(side, -(-max(needed, 2 * shared) // STEP) * STEP)
