"""Haar detail of a picture: what a pixel loss does not see of an error's neighbours."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def haar_details(x: torch.Tensor, levels: int = 3) -> list[torch.Tensor]:
    """Undecimated Haar detail: differences of neighbouring boxes of 1, 2, 4, ... pixels, along x and along y.

    Args:
        x: ``(B, C, H, W)``, at least ``2**levels`` on each side.

    Returns:
        two tensors per level, at every position where the pair of boxes lies inside.
    """
    details = []
    for level in range(levels):
        n = 2**level
        box = F.avg_pool2d(x, n, stride=1) if n > 1 else x
        details += [box[..., n:] - box[..., :-n], box[..., n:, :] - box[..., :-n, :]]
    return details
