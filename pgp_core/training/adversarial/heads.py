"""Projected discriminators (Sauer et al., 2021): a small head on each of a frozen network's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ..perceptual.efficientnet_lite0 import CHANNELS
from .spectral import Spectral, spectral

#: Batches whose features say what is subtracted and divided by.
CALIBRATION = 20
_EPS = 1e-5


class Heads(Spectral):
    """A 1x1 and two 3x3 convolutions, with spectral norm, on each feature, which is standardised a channel.

    Mean and variance are those of the first :data:`CALIBRATION` batches of real pictures, then stay: see :meth:`take`.

    Args:
        channels: of the features; by default those of EfficientNet-Lite0 but the first.
        width: of the heads.
    """

    mean: torch.Tensor
    square: torch.Tensor
    batches: torch.Tensor

    def __init__(self, channels: Sequence[int] = CHANNELS[1:], width: int = 64):
        super().__init__()
        self.channels = tuple(channels)
        self.heads = nn.ModuleList(
            nn.Sequential(
                spectral(nn.Conv2d(n, width, 1)),
                nn.LeakyReLU(0.2),
                spectral(nn.Conv2d(width, width, 3, padding=1)),
                nn.LeakyReLU(0.2),
                spectral(nn.Conv2d(width, 1, 3, padding=1)),
            )
            for n in self.channels
        )
        self.register_buffer("mean", torch.zeros(sum(self.channels)))
        self.register_buffer("square", torch.ones(sum(self.channels)))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.eval()

    def forward(self, features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Each ``(B, C, h, w)`` to logits ``(B, 1, h, w)``, above 0 for real."""
        deviation = (self.square - self.mean.square()).clamp(min=0).add(_EPS).sqrt()
        means, deviations = (v.view(1, -1, 1, 1).split(self.channels, 1) for v in (self.mean, deviation))
        parts = zip(self.heads, features, means, deviations, strict=True)
        return [head((f.to(mean.dtype) - mean) / deviation) for head, f, mean, deviation in parts]

    @staticmethod
    def measured(features: Sequence[torch.Tensor]) -> torch.Tensor:
        """``(2, sum of channels)``: the mean and the mean square of each channel of a batch."""
        return torch.cat([torch.stack((f.mean((0, 2, 3)), f.square().mean((0, 2, 3)))) for f in features], 1)

    @torch.no_grad()
    def take(self, measured: torch.Tensor) -> None:
        """Count a batch in, as :meth:`measured` has it, while there are fewer than :data:`CALIBRATION`."""
        if int(self.batches) >= CALIBRATION:
            return
        self.batches += 1
        for own, new in zip((self.mean, self.square), measured, strict=True):
            own.lerp_(new.to(own), 1 / int(self.batches))
