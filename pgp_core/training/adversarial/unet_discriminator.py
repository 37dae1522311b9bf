"""Real-ESRGAN's U-Net discriminator, narrower, on pixels beside the canvas that they were made from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .spectral import Spectral, spectral


class UNetDiscriminator(Spectral):
    """Two scales down and up again, skips added, spectral norm on all but the first and the last convolution.

    Args:
        width: channels of the first scale; the coarsest has four times as many.
        unshuffle: 1 for pixels as they are; 2 for four pixels in a position, a quarter of the work.
    """

    def __init__(self, width: int = 32, unshuffle: int = 2):
        super().__init__()
        self.unshuffle = unshuffle

        def conv(into: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            return spectral(nn.Conv2d(into, out, kernel, stride, 1, bias=False))

        self.first = nn.Conv2d(6 * unshuffle**2, width, 3, padding=1)
        self.down1, self.down2 = conv(width, 2 * width, 4, 2), conv(2 * width, 4 * width, 4, 2)
        self.up1, self.up2 = conv(4 * width, 2 * width), conv(2 * width, width)
        self.smooth = conv(width, width)
        self.last = nn.Conv2d(width, unshuffle**2, 3, padding=1)
        self.eval()

    def forward(self, pictures: torch.Tensor, canvas: torch.Tensor) -> list[torch.Tensor]:
        """One map of logits, above 0 for real.

        Args:
            pictures: ``(B, 3, H, W)`` in [0, 1] or somewhat beyond; H and W multiples of ``unshuffle`` and at least 8.
            canvas: what they were made from, alike.
        """
        x0 = _act(self.first(F.pixel_unshuffle(2 * torch.cat((pictures, canvas), 1) - 1, self.unshuffle)))
        x1 = _act(self.down1(x0))
        x2 = _act(self.down2(x1))
        y = _as_large_as(x1, _act(self.up1(x2))) + x1
        y = _as_large_as(x0, _act(self.up2(y))) + x0
        return [self.last(_act(self.smooth(y)))]


def _act(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, 0.2)


def _as_large_as(other: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, other.shape[-2:], mode="bilinear", align_corners=False)
