"""FaithDiff's LQ encoder: the trunk of SDXL's VAE encoder, fine-tuned, on the LQ canvas."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from .lq_tiles.stages import Norm, Stage, own, reach
from .spec import GROUPS

#: ``attention(q, k, v)``, one head: ``(B, C, H, W)`` each, and the result as q; q may have fewer rows than k and v.
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

EPS = 1e-6
#: That :func:`sliced_attention` keeps.
_SCORES = 1 << 26
#: How many of the finest levels are a stage each.
_AT_ONCE = 2


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """PyTorch's own attention; ComfyUI passes its VAE attention instead."""
    queries, keys, values = (x.flatten(2).transpose(1, 2)[:, None].contiguous() for x in (q, k, v))
    return F.scaled_dot_product_attention(queries, keys, values)[:, 0].transpose(1, 2).reshape(q.shape)


def sliced_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The same with scores that are kept for a slice of the queries at a time, where PyTorch's own cannot be used."""
    keys, values = k.flatten(2), v.flatten(2).transpose(1, 2)
    queries = (q * q.shape[1] ** -0.5).flatten(2).transpose(1, 2)
    slices = queries.split(max(1, _SCORES // keys.shape[-1]), 1)
    out = torch.cat([torch.bmm(torch.bmm(part, keys).softmax(-1), values) for part in slices], 1)
    return out.transpose(1, 2).reshape(q.shape)


class _Resnet(torch.nn.Module):
    """GroupNorm, SiLU, convolution, twice; a 1x1 convolution where the channels change."""

    def __init__(self, inputs: int, outputs: int, operations: Any, **factory: Any):
        super().__init__()
        self.norm1 = operations.GroupNorm(GROUPS, inputs, EPS, **factory)
        self.conv1 = operations.Conv2d(inputs, outputs, 3, padding=1, **factory)
        self.norm2 = operations.GroupNorm(GROUPS, outputs, EPS, **factory)
        self.conv2 = operations.Conv2d(outputs, outputs, 3, padding=1, **factory)
        self.conv_shortcut = operations.Conv2d(inputs, outputs, 1, **factory) if inputs != outputs else None

    def forward(self, x: torch.Tensor, norm: Norm = own) -> torch.Tensor:
        h = self.conv1(F.silu(norm(self.norm1, x)))
        h = self.conv2(F.silu(norm(self.norm2, h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class _Downsampler(torch.nn.Module):
    """Strided convolution, padded at the right and lower border only."""

    def __init__(self, channels: int, operations: Any, **factory: Any):
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, stride=2, **factory)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class _Level(torch.nn.Module):
    """The residual blocks of one scale and, but for the last, the step to the next."""

    def __init__(self, inputs: int, outputs: int, blocks: int, down: bool, operations: Any, **factory: Any):
        super().__init__()
        self.resnets = torch.nn.ModuleList(
            _Resnet(inputs if i == 0 else outputs, outputs, operations, **factory) for i in range(blocks)
        )
        self.downsamplers = torch.nn.ModuleList([_Downsampler(outputs, operations, **factory)] if down else [])

    def forward(self, x: torch.Tensor, norm: Norm = own) -> torch.Tensor:
        for resnet in self.resnets:
            x = resnet(x, norm)
        for downsampler in self.downsamplers:
            x = downsampler(x)
        return x


class _Attention(torch.nn.Module):
    """Self-attention with one head over all positions, added to its input."""

    def __init__(self, channels: int, attention: Attention, operations: Any, **factory: Any):
        super().__init__()
        self.channels, self.attention = channels, attention
        self.group_norm = operations.GroupNorm(GROUPS, channels, EPS, **factory)
        self.to_q, self.to_k, self.to_v = (operations.Linear(channels, channels, **factory) for _ in range(3))
        self.to_out = torch.nn.ModuleList([operations.Linear(channels, channels, **factory)])

    def forward(self, x: torch.Tensor, norm: Norm = own) -> torch.Tensor:
        normed = norm(self.group_norm, x)
        return x + self.answer(normed, *self.context(normed))

    def context(self, normed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of normed positions, ``(B, C, H, W)`` each; their channels lie beside each other."""
        return _projected(self.to_k, normed), _projected(self.to_v, normed)

    def answer(self, normed: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """What attention adds at normed positions, of the same and maybe more positions' keys and values."""
        return _projected(self.to_out[0], self.attention(_projected(self.to_q, normed), k, v))


def _projected(linear: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    projected: torch.Tensor = linear(x.flatten(2).transpose(1, 2))
    return projected.transpose(1, 2).reshape(x.shape)


class _Middle(torch.nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, attention: Attention, operations: Any, **factory: Any):
        super().__init__()
        self.resnets = torch.nn.ModuleList(_Resnet(channels, channels, operations, **factory) for _ in range(2))
        self.attentions = torch.nn.ModuleList([_Attention(channels, attention, operations, **factory)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class LQEncoder(torch.nn.Module):
    """SDXL's VAE encoder without its last norm, convolution and quantisation: features, no latent.

    Names below are diffusers', as in FaithDiff's file. With SDXL's channels it has 34,125,696 parameters.

    Args:
        channels: per level; each but the last is followed by a halving of the size.
        blocks: residual blocks per level.
        attention: see :data:`Attention`.
        operations: namespace with ``Conv2d``, ``Linear`` and ``GroupNorm``.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (128, 256, 512, 512),
        blocks: int = 2,
        attention: Attention = plain_attention,
        operations: Any = torch.nn,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        factory = {"operations": operations, "device": device, "dtype": dtype}
        self.factor = 2 ** (len(channels) - 1)
        self.conv_in = operations.Conv2d(3, channels[0], 3, padding=1, device=device, dtype=dtype)
        last = len(channels) - 1
        self.down_blocks = torch.nn.ModuleList(
            _Level(i, o, blocks, n != last, **factory) for n, (i, o) in enumerate(pairwise((channels[0], *channels)))
        )
        self.mid_block = _Middle(channels[-1], attention, **factory)

    def forward(self, lq: torch.Tensor) -> torch.Tensor:
        """Features of the canvas; nothing is sampled or scaled.

        Args:
            lq: ``(B, 3, H, W)`` RGB in [-1, 1]. Sizes that :attr:`factor` does not divide are padded right and
                below by repeating the edge, as FaithDiff does.

        Returns:
            ``(B, channels[-1], ceil(H / factor), ceil(W / factor))``.
        """
        height, width = lq.shape[-2:]
        pad_h, pad_w = -height % self.factor, -width % self.factor
        if pad_h or pad_w:
            lq = F.pad(lq, (0, pad_w, 0, pad_h), mode="replicate")
        x = self.conv_in(lq)
        for level in self.down_blocks:
            x = level(x)
        return self.mid_block(x)

    def stages(self) -> list[Stage]:
        """The same in stages; the first takes a canvas whose sides :attr:`factor` divides.

        For every norm, a stage is begun once more on all pieces, and between stages a map rests. Where the two finest
        levels are a stage each and all else is one per residual block, SDXL's channels take 1.9 times the untiled
        multiplications and rest 48 numbers per pixel; with one stage per block 1.4 times and 160 numbers.
        """
        groups: list[list[torch.nn.Module]] = []
        for i, level in enumerate(self.down_blocks):
            layers = [*level.resnets, *level.downsamplers]  # type: ignore[misc]
            # A downsampler ends the stage of the block before it.
            cuts = range(1, len(level.resnets)) if i >= _AT_ONCE or not level.downsamplers else ()  # type: ignore[arg-type]
            groups += [layers[a:b] for a, b in pairwise((0, *cuts, len(layers)))]
        groups[0].insert(0, self.conv_in)
        first, last = self.mid_block.resnets
        attention = self.mid_block.attentions[0]
        assert isinstance(attention, _Attention)
        middle = Stage(attention, attention.channels, 0, first=attention.group_norm, attention=attention)
        return [*map(_stage, [*groups, [first]]), middle, _stage([last])]


def _stage(layers: list[torch.nn.Module]) -> Stage:
    def run(x: torch.Tensor, norm: Norm) -> torch.Tensor:
        for layer in layers:
            x = layer(x, norm) if isinstance(layer, _Resnet) else layer(x)
        return x

    channels = max(getattr(m, "out_channels", 0) for layer in layers for m in layer.modules())
    stride = 2 if isinstance(layers[-1], _Downsampler) else 1
    first = layers[0].norm1 if isinstance(layers[0], _Resnet) else None
    return Stage(run, channels, reach(*layers), stride, first)
