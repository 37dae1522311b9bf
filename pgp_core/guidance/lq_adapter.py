"""LQ adapter: T2I-Adapter's ``full_adapter_xl`` over the LQ canvas, only the levels that are used."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


class _Resnet(torch.nn.Module):
    """``x + conv1x1(relu(conv3x3(x)))``, T2I-Adapter's residual block."""

    def __init__(self, channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.block1 = operations.Conv2d(channels, channels, 3, padding=1, **factory)
        self.block2 = operations.Conv2d(channels, channels, 1, **factory)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block2(F.relu(self.block1(x)))


class _Level(torch.nn.Module):
    """One scale: optional 2x average pooling, optional 1x1 channel change, then residual blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int, down: bool, operations: Any, **factory: Any):
        super().__init__()
        self.down = down
        self.in_conv = operations.Conv2d(inputs, outputs, 1, **factory) if inputs != outputs else None
        self.resnets = torch.nn.ModuleList(_Resnet(outputs, operations, **factory) for _ in range(blocks))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.down:
            x = F.avg_pool2d(x, 2, stride=2, ceil_mode=True)
        if self.in_conv is not None:
            x = self.in_conv(x)
        for resnet in self.resnets:
            x = resnet(x)
        return x


class LQAdapter(torch.nn.Module):
    """T2I-Adapter ``full_adapter_xl``: pixel unshuffle, a convolution, four levels at two scales.

    For SDXL (``unshuffle=16``, channels 320, 640, 1280, 1280) the levels lie at 1/16, 1/16, 1/32 and 1/32
    of the canvas: only the third pools. Only the first ``levels`` levels are built; level 0 alone has
    4,261,440 parameters.

    Args:
        channels: output channels per level.
        unshuffle: pixels of the canvas per feature position at level 0.
        levels: how many levels to build, from the first.
        blocks: residual blocks per level.
        operations: namespace with ``Conv2d``.
    """

    #: The levels that halve the scale in ``full_adapter_xl``.
    pooled_levels = (2,)

    def __init__(
        self,
        channels: tuple[int, ...] = (320, 640, 1280, 1280),
        unshuffle: int = 16,
        levels: int = 1,
        blocks: int = 2,
        operations: Any = torch.nn,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.unshuffle = unshuffle
        self.conv_in = operations.Conv2d(3 * unshuffle**2, channels[0], 3, padding=1, **factory)
        ins = (channels[0], *channels[:-1])
        self.body = torch.nn.ModuleList(
            _Level(ins[i], channels[i], blocks, i in self.pooled_levels, operations, **factory) for i in range(levels)
        )

    @property
    def scales(self) -> list[int]:
        """Positions of level 0 per position of each level along a side."""
        scale, scales = 1, []
        for level in self._levels:
            scale *= 1 + level.down
            scales.append(scale)
        return scales

    @property
    def halo(self) -> int:
        """How many positions of level 0 around a piece of the canvas its features depend on, at most.

        A multiple of the last level's scale. 3 for SDXL's level 0 alone (48 pixels), 14 for all four levels.
        """
        reach, scale = _reach(self.conv_in), 1
        for level in self._levels:
            if level.down:
                # A position that takes anything in from beyond is wrong as a whole.
                reach, scale = -(-reach // 2), 2 * scale
            reach += sum(_reach(m) for m in level.resnets.modules() if isinstance(m, torch.nn.Conv2d))
        return reach * scale

    @property
    def _levels(self) -> list[_Level]:
        return [level for level in self.body if isinstance(level, _Level)]

    def forward(self, lq: torch.Tensor) -> list[torch.Tensor]:
        """Features of each built level.

        Args:
            lq: ``(B, 3, H, W)`` RGB in [0, 1] at canvas size. Sizes that ``unshuffle`` does not divide are
                padded right and below by repeating the edge.

        Returns:
            one ``(B, C_i, ceil(H / s_i), ceil(W / s_i))`` per level.
        """
        height, width = lq.shape[-2:]
        pad_h, pad_w = -height % self.unshuffle, -width % self.unshuffle
        if pad_h or pad_w:
            lq = F.pad(lq, (0, pad_w, 0, pad_h), mode="replicate")
        x = self.conv_in(F.pixel_unshuffle(lq, self.unshuffle))
        features = []
        for level in self.body:
            x = level(x)
            features.append(x)
        return features


def _reach(conv: torch.nn.Conv2d) -> int:
    """Positions that a convolution sees on each side."""
    return conv.kernel_size[0] // 2
