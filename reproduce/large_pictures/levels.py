"""How far two pictures are from each other."""

from __future__ import annotations

import torch


def in_levels(a: torch.Tensor, b: torch.Tensor) -> dict[str, float]:
    """Root mean square and largest difference of pictures in 0..1, in levels of 255."""
    levels = (a - b).abs() * 255
    return {"rms": float(levels.square().mean().sqrt()), "max": float(levels.max())}
