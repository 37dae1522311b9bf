"""PEAM, the phase-exchange adapter module (the paper's Section 3.2, Equations 3 to 5)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from .phase import exchange_phase


class PEAM(torch.nn.Module):
    """Gives the LQ features' phase to the UNet's features and fuses the result back.

    ::

        P = exchange_phase(H, F)               |FFT(H)| with the phase of FFT(F)
        M, A = split(convs(concat(P, H)))      12 convolutions, 2C -> 64 -> ... -> 64 -> 2C
        H^ = M * P + A                         (+ H with ``residual``)

    The first convolution takes 2C channels to 64, eleven more follow it: ten of 64 to 64 and one back to
    2C, with LeakyReLU between them and none after the last. With 320 channels that is 1,107,264
    parameters, which is what the paper's total of 984.5 M leaves for it.

    With ``residual`` the last convolution starts at zero, so an untrained PEAM changes nothing. Without
    it (the literal Equation 5) the module replaces H from the start and must be trained before use.

    Args:
        channels: C, the channels of H and F.
        residual: add H to the fused result.
        slope: of LeakyReLU below zero. The paper does not say; with PyTorch's 0.01 the eleven of them died
            in training (standard deviation 2.5 at the first convolution, 0.003 at the last).
        operations: namespace with ``Conv2d`` (``torch.nn`` or ComfyUI's casting layers).
    """

    hidden = 64
    depth = 11

    def __init__(
        self,
        channels: int,
        residual: bool = True,
        slope: float = 0.2,
        operations: Any = torch.nn,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.channels = channels
        self.residual = residual
        self.slope = slope
        widths = [2 * channels] + [self.hidden] * self.depth + [2 * channels]
        self.convs: Any = torch.nn.ModuleList(
            operations.Conv2d(i, o, 3, padding=1, device=device, dtype=dtype) for i, o in pairwise(widths)
        )

    def reset_identity(self) -> None:
        """Start values for training: with ``residual`` the module then returns H unchanged.

        The last convolution is zero. The others keep the variance of their input: with PyTorch's default
        (0.41 of the standard deviation a layer) nothing of H and F would arrive at the twelfth, and the
        module would learn biases only (seen: no gain over bicubic in 800 steps).
        """
        *inner, last = self.convs
        for conv in inner:
            torch.nn.init.kaiming_normal_(conv.weight, a=self.slope)
            torch.nn.init.zeros_(conv.bias)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)

    def forward(self, h: torch.Tensor, f: torch.Tensor, exchange: bool = True) -> torch.Tensor:
        """Fuse.

        Args:
            h: ``(B, C, H, W)`` UNet features.
            f: ``(B, C, H, W)`` LQ features.
            exchange: False leaves h its own phase (the ablation "fusion without the phase").

        Returns:
            ``(B, C, H, W)`` in h's dtype.
        """
        return self.fuse(exchange_phase(h, f) if exchange else h, h)

    def fuse(self, p: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """The convolutions alone, on what they are given in place of h with f's phase.

        Args:
            p, h: ``(B, C, H, W)``.
        """
        x = torch.cat((p, h), dim=1)
        last = len(self.convs) - 1
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if i < last:
                x = F.leaky_relu(x, self.slope)
        scale, shift = x.chunk(2, dim=1)
        fused = scale * p + shift
        return h + fused if self.residual else fused
