"""One prediction for a whole latent out of predictions for its tiles (MultiDiffusion, Bar-Tal et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .grid import Tile
from .window import window


def blended(
    predict: Callable[[Tile], torch.Tensor],
    tiles: Sequence[Tile],
    overlap: int,
    blend: str = "cosine",
    done: Callable[[], None] | None = None,
) -> torch.Tensor:
    """The weighted mean of what tiles predict.

    At one noise level the denoised latent, the noise and v are linear in each other, so it does not matter which of
    them is blended.

    Args:
        predict: of a tile, ``(B, C, height, width)``.
        tiles: :func:`.grid.grid`'s.
        overlap, blend: see :func:`.window.window`.
        done: called after each tile; may raise, to stop.

    Returns:
        ``(B, C, H, W)`` in what ``predict`` returns, summed in float32.
    """
    if len(tiles) == 1:
        return predict(tiles[0])
    total = share = torch.empty(0)
    dtype = torch.float32
    for i, tile in enumerate(tiles):
        out = predict(tile)
        if i == 0:
            dtype = out.dtype
            total = torch.zeros(*out.shape[:2], *tile.of, device=out.device, dtype=torch.float32)
            share = torch.zeros(tile.of, device=out.device, dtype=torch.float32)
        weights = window(tile, overlap, blend).to(out.device)
        # Not zero times infinity: what does not count may be anything.
        tile.crop(total).add_(torch.where(weights > 0, out * weights, 0))
        tile.crop(share).add_(weights)
        if done is not None:
            done()
    return total.div_(share).to(dtype)
