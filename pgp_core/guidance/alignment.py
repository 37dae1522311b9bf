"""FaithDiff's alignment: LQ features meet the noisy latent's right after ``conv_in``, pixel by pixel.

In the authors' code the module holds multi-head attention that runs over the *batch* axis (it is built
batch-second and fed batch-first), at every pixel by itself. At inference the batch holds equal tokens, so the
softmax is over equal values and attention is its value path, ``out(v(x))``; queries and keys do nothing. That is
the form here: exact for the published weights, free of attention, and a batch of different pictures gives each
the result that it has alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from .lq_tiles.stages import Norm, Stage, own, reach


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """CLIP's GELU, ``x * sigmoid(1.702 x)``."""
    return x * torch.sigmoid(1.702 * x)


class _Condition(torch.nn.Module):
    """From the LQ encoder's features to the UNet's width. GroupNorm comes first, unlike in ControlNet."""

    def __init__(self, inputs: int, channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.norm_in = operations.GroupNorm(32, inputs, 1e-6, **factory)
        self.conv_in = operations.Conv2d(inputs, inputs, 3, padding=1, **factory)
        self.conv_out = operations.Conv2d(inputs, channels, 3, padding=1, **factory)

    def forward(self, x: torch.Tensor, norm: Norm = own) -> torch.Tensor:
        return self.conv_out(F.silu(self.conv_in(norm(self.norm_in, x))))


class _Block(torch.nn.Module):
    """``x += out(v(ln_1 x)); x += c_proj(quick_gelu(c_fc(ln_2 x)))`` for each token by itself."""

    def __init__(self, width: int, operations: Any, **factory: Any):
        super().__init__()
        self.ln_1 = operations.LayerNorm(width, **factory)
        self.value = operations.Linear(width, width, **factory)
        self.out = operations.Linear(width, width, **factory)
        self.ln_2 = operations.LayerNorm(width, **factory)
        self.c_fc = operations.Linear(width, 2 * width, **factory)
        self.c_proj = operations.Linear(2 * width, width, **factory)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.out(self.value(self.ln_1(x)))
        return x + self.c_proj(quick_gelu(self.c_fc(self.ln_2(x))))


class Alignment(torch.nn.Module):
    """FaithDiff's alignment module.

    Use :meth:`condition` once per picture, then :meth:`forward` at each UNet call.

    Args:
        inputs: channels of the LQ encoder's features (512 in FaithDiff).
        channels: of the UNet after ``conv_in`` (320 in SDXL).
        layers: residual blocks.
        operations: namespace with ``Conv2d``, ``Linear``, ``GroupNorm`` and ``LayerNorm``.
    """

    def __init__(
        self,
        inputs: int = 512,
        channels: int = 320,
        layers: int = 2,
        operations: Any = torch.nn,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory = {"operations": operations, "device": device, "dtype": dtype}
        self.embedding = _Condition(inputs, channels, **factory)
        self.blocks = torch.nn.ModuleList(_Block(2 * channels, **factory) for _ in range(layers))
        self.proj = operations.Linear(2 * channels, channels, device=device, dtype=dtype)

    def reset_identity(self) -> None:
        """Zero the last layer, as the authors' training starts: the module then changes nothing."""
        torch.nn.init.zeros_(self.proj.weight)
        torch.nn.init.zeros_(self.proj.bias)

    def condition(self, features: torch.Tensor) -> torch.Tensor:
        """``(B, inputs, h, w)`` of the LQ encoder to ``(B, channels, h, w)``; independent of the timestep."""
        return self.embedding(features)

    def stage(self) -> Stage:
        """:meth:`condition` for pieces of the features."""
        layer = self.embedding
        channels = max(layer.conv_in.out_channels, layer.conv_out.out_channels)
        return Stage(layer, channels, reach(layer), first=layer.norm_in)

    def forward(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        """What is added to the UNet's features.

        Args:
            h: ``(B, channels, h, w)``, the noisy latent after ``conv_in``.
            c: ``(B, channels, h, w)`` from :meth:`condition`.

        Returns:
            ``(B, channels, h, w)``.
        """
        x = torch.cat((h, c), dim=1).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.proj(x).transpose(1, 2).reshape(h.shape)
