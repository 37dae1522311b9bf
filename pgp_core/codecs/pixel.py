"""Nano's "VAE": pixel unshuffle. Lossless, nothing to train, 48 channels at a quarter of each side."""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: Pixels per latent position along each side.
FACTOR = 4
CHANNELS = 3 * FACTOR**2


def encode(rgb: torch.Tensor) -> torch.Tensor:
    """``(B, 3, H, W)`` in [0, 1], sides divisible by 4, to ``(B, 48, H / 4, W / 4)`` in [-1, 1]."""
    return F.pixel_unshuffle(rgb * 2 - 1, FACTOR)


def decode(latent: torch.Tensor) -> torch.Tensor:
    """Inverse of :func:`encode`; not clamped."""
    return (F.pixel_shuffle(latent, FACTOR) + 1) / 2
