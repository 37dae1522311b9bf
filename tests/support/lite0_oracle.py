"""EfficientNet-Lite0 as its authors describe it, whole and with BatchNorm, in the names of the package's file."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

#: Repeats, kernel, stride, expansion, channels in and out: efficientnet_lite_builder.py of TensorFlow's TPU models.
STAGES = (
    *((1, 3, 1, 1, 32, 16), (2, 3, 2, 6, 16, 24), (2, 5, 2, 6, 24, 40), (3, 3, 2, 6, 40, 80), (3, 5, 1, 6, 80, 112)),
    *((4, 5, 2, 6, 112, 192), (1, 3, 1, 6, 192, 320)),
)


class Same(nn.Module):
    """TensorFlow's padding "SAME", then a convolution without bias."""

    def __init__(self, into: int, out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, into // groups, kernel, kernel))
        self.stride, self.groups = stride, groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, pads = self.weight.shape[-1], []
        for size in (x.shape[3], x.shape[2]):
            total = max(kernel - self.stride if size % self.stride == 0 else kernel - size % self.stride, 0)
            pads += [total // 2, total - total // 2]
        return nn.functional.conv2d(nn.functional.pad(x, pads), self.weight, None, self.stride, groups=self.groups)


class Bottleneck(nn.Module):
    def __init__(self, kernel: int, stride: int, expansion: int, into: int, out: int):
        super().__init__()
        wide = into * expansion
        self.expands, self.adds = expansion > 1, stride == 1 and into == out
        if self.expands:
            self._expand_conv, self._bn0 = Same(into, wide, 1), nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv, self._bn1 = Same(wide, wide, kernel, stride, wide), nn.BatchNorm2d(wide, eps=1e-3)
        self._project_conv, self._bn2 = Same(wide, out, 1), nn.BatchNorm2d(out, eps=1e-3)
        self.expanded = nn.ReLU6()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.expanded(self._bn0(self._expand_conv(x))) if self.expands else x
        h = nn.functional.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return x + h if self.adds else h


class Lite0(nn.Module):
    """``(B, 3, H, W)`` in [0, 1] to 1000 logits; every convolution's name is the file's."""

    def __init__(self, weights: dict[str, Any]):
        super().__init__()
        with torch.device("meta"):
            self._conv_stem, self._bn0 = Same(3, 32, 3, 2), nn.BatchNorm2d(32, eps=1e-3)
            self.stem = nn.ReLU6()
            blocks: list[nn.Module] = []
            for repeats, kernel, stride, expansion, into, out in STAGES:
                blocks.append(Bottleneck(kernel, stride, expansion, into, out))
                blocks += [Bottleneck(kernel, 1, expansion, out, out) for _ in range(repeats - 1)]
            self._blocks = nn.Sequential(*blocks)
            self._conv_head, self._bn1 = Same(320, 1280, 1), nn.BatchNorm2d(1280, eps=1e-3)
            self._fc = nn.Linear(1280, 1000)
        self.load_state_dict(weights, assign=True)
        self.eval()

    @torch.no_grad()
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        x = self._blocks(self.stem(self._bn0(self._conv_stem((255 * pictures - 127) / 128))))
        x = nn.functional.relu6(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))
