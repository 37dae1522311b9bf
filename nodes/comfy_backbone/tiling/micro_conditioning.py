"""FaithDiff's micro-conditioning of a tile: where it lies and how large it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ....pgp_core.tiling import Tile
from ..places import Piece

#: SDXL's ``y`` ends with this many embeddings: height, width, crop, crop, target height, target width.
_NUMBERS = 6


def of_tile(y: Any, tile: Tile, scale: int, embedder: Any, areas: Sequence[Piece] | None = None) -> Any:
    """SDXL's vector condition as FaithDiff's tiles have it.

    The crop becomes the tile's place, which the authors count in latent positions, and the target its size in pixels;
    the size of the original stays, and so does everything where the tile is all of the latent.

    Args:
        y: ``(B, pooled + 6 * embedding)``; returned as it is where there is no room for six embeddings.
        scale: pixels per latent position.
        embedder: the MODEL's, from numbers to ``(n, embedding)``.
        areas: of what the tile is one, for each conditioning in the batch; None where all are of the whole picture.
    """
    if tile.whole or not isinstance(y, torch.Tensor) or y.ndim != 2 or embedder is None:
        return y
    places = [(tile.y, tile.x)] if not areas else [(area.y + tile.y, area.x + tile.x) for area in areas]
    numbers = [(*place, tile.height * scale, tile.width * scale) for place in places]
    embedded = embedder(torch.tensor(numbers, dtype=torch.float32).flatten()).to(y)
    if y.shape[1] < _NUMBERS * embedded.shape[1]:
        return y
    embedded = embedded.reshape(len(places), -1)
    each = embedded.repeat_interleave(y.shape[0] // len(places), 0)
    return torch.cat([y[:, : -each.shape[1]], each], dim=1)
