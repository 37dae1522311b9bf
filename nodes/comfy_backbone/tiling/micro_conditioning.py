"""FaithDiff's micro-conditioning of a tile: where it lies and how large it is."""

from __future__ import annotations

from typing import Any

import torch

from ....pgp_core.tiling import Tile

#: SDXL's ``y`` ends with this many embeddings: height, width, crop, crop, target height, target width.
_NUMBERS = 6


def of_tile(y: Any, tile: Tile, scale: int, embedder: Any) -> Any:
    """SDXL's vector condition as FaithDiff's tiles have it.

    The crop becomes the tile's place, which the authors count in latent positions, and the target its size in pixels;
    the size of the original stays, and so does everything where the tile is all of the latent.

    Args:
        y: ``(B, pooled + 6 * embedding)``; returned as it is where there is no room for six embeddings.
        scale: pixels per latent position.
        embedder: the MODEL's, from numbers to ``(n, embedding)``.
    """
    if tile.whole or not isinstance(y, torch.Tensor) or y.ndim != 2 or embedder is None:
        return y
    numbers = (tile.y, tile.x, tile.height * scale, tile.width * scale)
    embedded = embedder(torch.tensor(numbers, dtype=torch.float32)).to(y)
    if y.shape[1] < _NUMBERS * embedded.shape[1]:
        return y
    return torch.cat([y[:, : -embedded.numel()], embedded.flatten().expand(y.shape[0], -1)], dim=1)
