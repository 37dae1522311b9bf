"""LQ adapter and PEAM written out with plain convolutions and numpy's FFT, from a file's tensors, in any precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

Weights = Mapping[str, torch.Tensor]


class Written:
    """The guidance of a file.

    Args:
        unshuffle: pixels of the canvas per position of level 0.
        low, high: what 0 and 1 of the canvas become.
        slope, residual: of PEAM.
    """

    def __init__(
        self,
        path: Path,
        dtype: torch.dtype,
        unshuffle: int,
        low: float = 0.0,
        high: float = 1.0,
        slope: float = 0.2,
        residual: bool = True,
    ):
        self.weights = {k.removeprefix("pgp."): v.to(dtype) for k, v in load_file(path).items()}
        self.unshuffle, self.low, self.high, self.slope, self.residual = unshuffle, low, high, slope, residual

    def features(self, lq: torch.Tensor) -> list[torch.Tensor]:
        """Of each level; T2I-Adapter's third one halves."""
        x = lq * (self.high - self.low) + self.low
        height, width = x.shape[-2:]
        extra = (-width % self.unshuffle, -height % self.unshuffle)
        x = F.pixel_unshuffle(F.pad(x, (0, extra[0], 0, extra[1]), mode="replicate"), self.unshuffle)
        x, out, level = self._conv("lq_adapter.conv_in", x), [], 0
        while any(k.startswith(f"lq_adapter.body.{level}.") for k in self.weights):
            name, block = f"lq_adapter.body.{level}", 0
            if level == 2:
                x = F.avg_pool2d(x, 2, 2, ceil_mode=True)
            if f"{name}.in_conv.weight" in self.weights:
                x = self._conv(f"{name}.in_conv", x)
            while f"{name}.resnets.{block}.block1.weight" in self.weights:
                inner = self._conv(f"{name}.resnets.{block}.block1", x).clamp(min=0)
                x, block = x + self._conv(f"{name}.resnets.{block}.block2", inner), block + 1
            out.append(x)
            level += 1
        return out

    def peam(self, site: int, h: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        """Equations 3 to 5."""
        f = f.repeat(h.shape[0] // f.shape[0], 1, 1, 1)
        magnitude, phase = np.abs(np.fft.fft2(h.double().numpy())), np.angle(np.fft.fft2(f.double().numpy()))
        p = torch.from_numpy(np.fft.ifft2(magnitude * np.exp(1j * phase)).real).to(h.dtype)
        x = torch.cat([p, h], 1)
        for i in range(12):
            x = self._conv(f"peam.{site}.convs.{i}", x)
            x = x if i == 11 else torch.where(x > 0, x, self.slope * x)
        scale, shift = x.chunk(2, 1)
        return scale * p + shift + (h if self.residual else 0)

    def _conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.conv2d(x, weight, self.weights[f"{name}.bias"], padding=weight.shape[-1] // 2)
