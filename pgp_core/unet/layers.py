"""The parts of a UNet of SDXL's kind, named as diffusers names them: resnets, transformer stacks, samplers."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F

#: Of every GroupNorm.
GROUPS = 32
#: More numbers than this make PyTorch's enlargement of channels-last tensors fail, and so do batches of 64.
_MOST_NUMBERS, _MOST_PICTURES = 2**31, 64


def sinusoids(values: torch.Tensor, width: int) -> torch.Tensor:
    """Cosines, then sines, of numbers at falling frequencies: ``(N,)`` to ``(N, width)``.

    In float32, whatever the UNet's dtype: half precision does not tell timesteps apart.
    """
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=values.device) / half)
    angles = values[:, None].float() * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Embedding(torch.nn.Module):
    """Two linear layers: ``(B, inputs)`` to ``(B, width)``."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.linear_1 = torch.nn.Linear(inputs, width)
        self.linear_2 = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class Resnet(torch.nn.Module):
    """Two convolutions with the timestep between them, beside what came in: ``(B, inputs, h, w)`` to ``outputs``."""

    def __init__(self, inputs: int, outputs: int, time: int):
        super().__init__()
        self.norm1 = torch.nn.GroupNorm(GROUPS, inputs)
        self.conv1 = torch.nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = torch.nn.Linear(time, outputs)
        self.norm2 = torch.nn.GroupNorm(GROUPS, outputs)
        self.conv2 = torch.nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = torch.nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(torch.nn.Module):
    """Attention of ``(B, n, width)`` over itself or over ``(B, m, context)``."""

    def __init__(self, width: int, context: int, head: int):
        super().__init__()
        self.heads = width // head
        self.to_q = torch.nn.Linear(width, width, bias=False)
        self.to_k = torch.nn.Linear(context, width, bias=False)
        self.to_v = torch.nn.Linear(context, width, bias=False)
        self.to_out = torch.nn.Sequential(torch.nn.Linear(width, width))

    def forward(self, x: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        context = x if context is None else context
        q, k, v = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for y in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class GatedGELU(torch.nn.Module):
    """A linear layer of which one half gates the other."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = torch.nn.Linear(inputs, 2 * outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(torch.nn.Module):
    """Four times as wide in between. The second entry of ``net`` is the place of diffusers' dropout."""

    def __init__(self, width: int):
        super().__init__()
        self.net = torch.nn.Sequential(
            GatedGELU(width, 4 * width), torch.nn.Identity(), torch.nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class Block(torch.nn.Module):
    """One transformer block on ``(B, h * w, width)``: attention over the picture, over the prompt, feed-forward."""

    def __init__(self, width: int, context: int, head: int):
        super().__init__()
        self.norm1 = torch.nn.LayerNorm(width)
        self.attn1 = Attention(width, width, head)
        self.norm2 = torch.nn.LayerNorm(width)
        self.attn2 = Attention(width, context, head)
        self.norm3 = torch.nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        x = x + self.attn1(self.norm1(x))
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Stack(torch.nn.Module):
    """A transformer stack on ``(B, width, h, w)``. Blocks keep the numbers that they are given, with gaps."""

    def __init__(self, width: int, context: int, head: int, numbers: Iterable[int]):
        super().__init__()
        self.norm = torch.nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in = torch.nn.Linear(width, width)
        self.transformer_blocks = torch.nn.ModuleList()
        for number in numbers:
            self.transformer_blocks.add_module(str(number), Block(width, context, head))
        self.proj_out = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for block in self.transformer_blocks:
            h = block(h, context)
        return self.proj_out(h).transpose(1, 2).reshape(x.shape).contiguous() + x


class Downsampler(torch.nn.Module):
    """Half the size, rounded up."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


class Upsampler(torch.nn.Module):
    """To the size of the skip that comes next, which is twice as large or one less."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = torch.nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        if x.shape[0] >= _MOST_PICTURES or 2 * x.numel() > _MOST_NUMBERS:
            x = x.contiguous()
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
