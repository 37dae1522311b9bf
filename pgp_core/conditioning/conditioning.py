"""What the UNet is told beside latent and timestep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..tiling import Tile


@dataclass(frozen=True)
class Conditioning:
    """Tokens, pooled vectors and sizes: of one prompt (or learned context), or of each sample of a batch.

    Attributes:
        context: ``(B, tokens, width)``.
        pooled: ``(B, width)``.
        time_ids: ``(B, 6)``, SDXL's sizes in pixels: original height and width, crop from the top and left, target
            height and width. float32 whatever the UNet's dtype: bfloat16 knows no odd numbers above 256.
    """

    context: torch.Tensor
    pooled: torch.Tensor
    time_ids: torch.Tensor

    @classmethod
    def of_prompt(cls, context: torch.Tensor, pooled: torch.Tensor, sizes: Sequence[float]) -> Conditioning:
        """One prompt with its six sizes."""
        return cls(context, pooled, torch.tensor([sizes], dtype=torch.float32))

    def of_tile(self, tile: Tile, factor: int) -> Conditioning:
        """As FaithDiff conditions a tile: where it begins, in latent positions, and its size in pixels."""
        own = [tile.y, tile.x, tile.height * factor, tile.width * factor]
        place = torch.tensor(own, dtype=self.time_ids.dtype, device=self.time_ids.device)
        return replace(self, time_ids=torch.cat((self.time_ids[:, :2], place.expand(len(self.time_ids), -1)), 1))
