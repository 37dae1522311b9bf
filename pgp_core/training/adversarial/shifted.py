"""A loss between two passes over one picture, moved by two pixels: what differs was drawn by the model's own grid.

A model that works on blocks of pixels can draw saw teeth of the block's size, which discriminators do not mind and the
eye does. The second pass has the blocks elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from ..subject import Batch
from .config import BORDER, MOVE


def inside(side: int, grid: int) -> int:
    """Side of the second pass's crop in one of ``side`` pixels: the most that the model takes after the move.

    Args:
        grid: pixels that a side must be a multiple of.
    """
    return (side - MOVE) // grid * grid


def moved_batch(batch: Batch, grid: int) -> Batch:
    """The part of a batch that the second pass sees."""
    height, width = (inside(n, grid) for n in batch.lq.shape[-2:])
    lq, hq = (p[..., MOVE : MOVE + height, MOVE : MOVE + width] for p in (batch.lq, batch.hq))
    return replace(batch, lq=lq.contiguous(), hq=hq.contiguous(), corner=batch.corner + MOVE)


def shifted(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of two results, in [-1, 1], a scalar; gradients reach both.

    Args:
        first: ``(B, 3, H, W)`` in [0, 1], of the whole crop.
        second: ``(B, 3, h, w)``, of :func:`moved_batch`.
    """
    height, width = second.shape[-2:]
    part = first[..., MOVE : MOVE + height, MOVE : MOVE + width]
    middle = (..., slice(BORDER, height - BORDER), slice(BORDER, width - BORDER))
    return 2 * (part[middle] - second[middle]).abs().mean()
