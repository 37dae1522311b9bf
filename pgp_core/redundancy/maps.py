"""Small pictures of features, kept in a report: the mean over channels (Figure 3a).

A plan is made from a report without a model, so reading one does not wait for PyTorch.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

#: Longest side of a kept map, in positions.
LONGEST = 48
#: Timesteps that are kept of each module; later ones are not.
MOST = 24


@dataclass(frozen=True)
class FeatureMap:
    """A map of ``height`` x ``width`` values between ``low`` and ``high``, in 256 levels.

    Attributes:
        levels: row by row, one byte a position.
    """

    height: int
    width: int
    low: float
    high: float
    levels: bytes

    @classmethod
    def of(cls, small: torch.Tensor) -> FeatureMap:
        """Of what :func:`shrunk` returned."""
        import torch

        # CPU first: MPS has no float64, in which the difference of the largest numbers does not overflow.
        values = small.cpu().double()
        low, high = float(values.min()), float(values.max())
        share = (values - low) / (high - low) if high > low else torch.zeros_like(values)
        levels = (share * 255).round().to(torch.uint8).contiguous()
        return cls(small.shape[0], small.shape[1], low, high, levels.numpy().tobytes())

    def values(self) -> torch.Tensor:
        """``(height, width)`` float32."""
        import torch

        levels = torch.frombuffer(bytearray(self.levels), dtype=torch.uint8).view(self.height, self.width)
        # In double: between the largest numbers of float32 lies more than it can hold.
        return (self.low + levels.double() * ((self.high - self.low) / 255)).float()

    def to_json(self) -> dict[str, Any]:
        """JSON data."""
        return {**vars(self), "levels": base64.b64encode(self.levels).decode()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FeatureMap:
        """Read and check.

        Raises:
            KeyError, TypeError, ValueError: if something is missing or wrong.
        """
        height, width = data["height"], data["width"]
        if not all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= LONGEST for n in (height, width)):
            raise ValueError(f"a feature map of {height!r} x {width!r}")
        low, high = float(data["low"]), float(data["high"])
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise ValueError(f"a feature map from {low} to {high}")
        try:
            levels = base64.b64decode(data["levels"], validate=True)
        except binascii.Error as e:
            raise ValueError(f"a feature map's levels ({e})") from None
        if len(levels) != height * width:
            raise ValueError(f"a feature map of {height} x {width} with {len(levels)} levels")
        return cls(height, width, low, high, levels)


def shrunk(features: torch.Tensor) -> torch.Tensor:
    """``(C, H, W)`` to the mean over channels, float32, its longest side at most :data:`LONGEST`."""
    from torch.nn.functional import adaptive_avg_pool2d

    mean = features.float().mean(0)
    ratio = min(1.0, LONGEST / max(mean.shape))
    height, width = (max(1, round(n * ratio)) for n in mean.shape)
    return adaptive_avg_pool2d(mean[None], (height, width))[0]
