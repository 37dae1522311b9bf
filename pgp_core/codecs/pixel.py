"""Nano's "VAE": pixel unshuffle. Lossless, 48 channels at a quarter of each side.

A learned decoder may redraw what comes out: :mod:`pgp_core.codecs.decoder`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

#: Pixels per latent position along each side.
FACTOR = 4
CHANNELS = 3 * FACTOR**2


def encode(rgb: torch.Tensor) -> torch.Tensor:
    """``(B, 3, H, W)`` in [0, 1], sides divisible by 4, to ``(B, 48, H / 4, W / 4)`` in [-1, 1]."""
    return F.pixel_unshuffle(rgb * 2 - 1, FACTOR)


def decode(latent: torch.Tensor, redrawn: Callable[[torch.Tensor], torch.Tensor] | None = None) -> torch.Tensor:
    """Inverse of :func:`encode`; not clamped.

    Args:
        redrawn: what a learned decoder makes of the picture, ``(B, 3, H, W)`` float32 in [-1, 1]; see
            :mod:`pgp_core.codecs.decoder`.
    """
    picture = F.pixel_shuffle(latent, FACTOR)
    if redrawn is not None:
        picture = redrawn(picture.float())
    return (picture + 1) / 2
