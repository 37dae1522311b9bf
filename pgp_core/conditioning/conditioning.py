"""What the UNet is told beside latent and timestep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..tiling import Tile


@dataclass(frozen=True)
class Conditioning:
    """Cross-attention tokens and pooled vector of one prompt (or learned context).

    Attributes:
        context: ``(1, tokens, context_dim)``.
        pooled: ``(1, pooled_dim)``.
        time_ids: SDXL's six sizes in pixels.
    """

    context: torch.Tensor
    pooled: torch.Tensor
    time_ids: tuple[float, float, float, float, float, float]

    def of_tile(self, tile: Tile, factor: int) -> Conditioning:
        """As FaithDiff conditions a tile: where it begins, in latent positions, and its size in pixels."""
        height, width = self.time_ids[:2]
        return replace(
            self, time_ids=(height, width, tile.y, tile.x, float(tile.height * factor), float(tile.width * factor))
        )
