"""PEAM's phase exchange over the whole canvas, though the UNet runs in tiles.

The exchange is a Fourier transform over all positions, so a tile by itself gets another result than it has as a part
of the canvas. Here the UNet's features at the site are gathered from all tiles first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ..tiling import Tile, blended
from .module import fit
from .phase import exchange_phase


def canvas_phase(
    reached: Callable[[Tile], torch.Tensor],
    f: torch.Tensor,
    tiles: Sequence[Tile],
    overlap: int,
    blend: str,
    done: Callable[[], None] | None = None,
) -> torch.Tensor:
    """``exchange_phase`` of blended features and the LQ features of the whole canvas.

    Args:
        reached: the UNet's features at the site within a tile, ``(k * B, C, ...)``, k for cond and uncond.
        f: ``(1 or B, C, H, W)`` LQ features of the canvas.
        tiles: of the latent.
        overlap, blend: see :func:`pgp_core.tiling.window`, in latent positions.
        done: see :func:`pgp_core.tiling.blended`.

    Returns:
        ``(k * B, C, H', W')`` in the features' dtype, which :meth:`pgp_core.tiling.Tile.crop` takes apart.
    """
    # The first tile says how much coarser than the latent the site is.
    first = reached(tiles[0])
    scale = round(tiles[0].width / first.shape[-1])
    coarse = {tile.coarser(scale): tile for tile in tiles}

    def features(small: Tile) -> torch.Tensor:
        return first if coarse[small] is tiles[0] else reached(coarse[small])

    h = blended(features, list(coarse), overlap // scale, blend, done)
    f = fit(f.to(h.device), h.shape[-2], h.shape[-1]).to(h.dtype)
    if f.shape[0] != 1:
        f = f.repeat(h.shape[0] // f.shape[0], 1, 1, 1)
    return exchange_phase(h, f.expand_as(h))
