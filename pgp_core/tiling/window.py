"""How much each position of a tile counts where tiles overlap."""

from __future__ import annotations

import torch

from ..choices import BLENDS
from ..errors import PGPError
from .grid import Tile

#: Of FaithDiff's Gaussian, in tiles squared.
_VARIANCE = 0.01


def check_blend(blend: str) -> None:
    """Raise PGPError if there is no such window."""
    if blend not in BLENDS:
        raise PGPError(f"blend is {' or '.join(BLENDS)}, not {blend!r}")


def window(tile: Tile, overlap: int, blend: str = "cosine") -> torch.Tensor:
    """A tile's weights, ``(height, width)`` float32 on the CPU, 0 to 1; they are still to be divided by their sum.

    Edges of the whole latent have no neighbour: there a cosine window stays at 1.

    Args:
        overlap: what neighbours share, in latent positions.
    """
    down = _weights(tile.height, tile.y > 0, tile.y + tile.height < tile.of[0], overlap, blend)
    across = _weights(tile.width, tile.x > 0, tile.x + tile.width < tile.of[1], overlap, blend)
    return down[:, None] * across[None, :]


def _weights(n: int, before: bool, after: bool, overlap: int, blend: str) -> torch.Tensor:
    check_blend(blend)
    at = torch.arange(n, dtype=torch.float64)
    if blend == "gaussian":
        return torch.exp(-(((at - (n - 1) / 2) / n) ** 2) / (2 * _VARIANCE)).float()
    rise = torch.ones(n, dtype=torch.float64)
    if overlap:
        # From 0 at a quarter of the overlap to 1 at three quarters.
        share = ((at + 0.5) / overlap - 0.25).mul(2).clamp(0, 1)
        rise = (1 - torch.cos(torch.pi * share)) / 2
    weights = torch.ones(n, dtype=torch.float64)
    if before:
        weights = weights * rise
    if after:
        weights = weights * rise.flip(0)
    return weights.float()
