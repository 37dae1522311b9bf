"""Nano's learned decoder: a few convolutions that redraw a picture after the pixel shuffle.

A pixel shuffle alone draws every 4x4 block from its own latent position; what was trained towards sharp pictures then
has saw teeth of the block's size on slanted edges. Convolutions at full resolution see across.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import PGPError

#: Of LeakyReLU below zero.
SLOPE = 0.2
#: Side of the tiles that a picture is decoded in. What one takes, 25 MB a layer, no picture exceeds.
TILE = 512


@dataclass(frozen=True)
class DecoderShape:
    """How large a decoder is. Decoders of one shape can be mixed.

    Attributes:
        width: channels between its convolutions.
        depth: how many convolutions there are, at least two.
    """

    width: int = 24
    depth: int = 4


class PixelDecoder(torch.nn.Module):
    """``x + convs(x)``: convolutions 3x3 with LeakyReLU between them, zeros beyond the border.

    It sees the picture alone: in ComfyUI a VAE gets a latent and nothing beside it.

    Args:
        shape: how large.
        operations: namespace with ``Conv2d`` (``torch.nn`` or ComfyUI's casting layers).
    """

    def __init__(
        self,
        shape: DecoderShape = DecoderShape(),
        operations: Any = torch.nn,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.shape = shape
        widths = [3] + [shape.width] * (shape.depth - 1) + [3]
        self.convs: Any = torch.nn.ModuleList(
            operations.Conv2d(i, o, 3, padding=1, device=device, dtype=dtype) for i, o in pairwise(widths)
        )

    @classmethod
    def fresh(cls, shape: DecoderShape = DecoderShape()) -> PixelDecoder:
        """Start values for training, in float32: it returns what it is given, bit for bit."""
        decoder = cls(shape)
        *inner, last = decoder.convs
        for conv in inner:
            torch.nn.init.kaiming_normal_(conv.weight, a=SLOPE)
            torch.nn.init.zeros_(conv.bias)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        return decoder

    @property
    def reach(self) -> int:
        """Pixels in each direction that a pixel of the result depends on."""
        return len(self.convs)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """``(B, 3, H, W)``, in [-1, 1] but not clamped, to the same; all at once, and gradients pass."""
        # Few channels at full resolution: less than half the time on a CPU.
        x = picture.contiguous(memory_format=torch.channels_last)
        *inner, last = self.convs
        for conv in inner:
            x = F.leaky_relu_(conv(x), SLOPE)
        return picture + last(x)

    @torch.no_grad()
    def drawn(self, picture: torch.Tensor, tile: int = TILE) -> torch.Tensor:
        """:meth:`forward` in memory that does not grow with the picture, and without gradients.

        Tiles overlap by what a pixel depends on, so they meet without a seam and without blending; each picture of a
        batch is drawn by itself, and does not depend on the others.
        """
        out = torch.empty_like(picture, memory_format=torch.contiguous_format)
        for one, result in zip(picture.split(1), out.split(1), strict=True):
            for rows, seen_rows, cut_rows in self._spans(picture.shape[-2], tile):
                for columns, seen_columns, cut_columns in self._spans(picture.shape[-1], tile):
                    drawn = self(one[..., seen_rows, seen_columns])
                    result[..., rows, columns] = drawn[..., cut_rows, cut_columns]
        return out

    def _spans(self, size: int, tile: int) -> Iterator[tuple[slice, slice, slice]]:
        """Of each tile along a side: where it is, what it sees, and where it is in that."""
        for start in range(0, size, tile):
            stop = min(start + tile, size)
            first = max(0, start - self.reach)
            yield slice(start, stop), slice(first, min(stop + self.reach, size)), slice(start - first, stop - first)


@torch.no_grad()
def mixed(one: PixelDecoder | None, other: PixelDecoder | None, share: float) -> PixelDecoder | None:
    """A decoder between two, weight by weight, as LoRAs of one base are mixed.

    Of two that one was trained from the other, or both from a third: others share no meaning of their channels. None
    is the decoder that changes nothing, and then the mixture changes the picture by a share of what the other does.

    Args:
        share: 0 for the first, 1 for the other.

    Returns:
        one in float32 with weights of its own; None where both are None.

    Raises:
        PGPError: if they are of two shapes.
    """
    if one is None or other is None:
        known, share = (other, share) if one is None else (one, 1 - share)
        if known is None:
            return None
        result = _copied(known)
        for x in result.convs[-1].parameters():
            x.mul_(share)
        return result
    if one.shape != other.shape:
        sizes = " and ".join(f"{d.shape.depth} convolutions of width {d.shape.width}" for d in (one, other))
        raise PGPError(f"decoders of two shapes cannot be mixed: {sizes}")
    result = _copied(one)
    for x, y in zip(result.parameters(), other.parameters(), strict=True):
        x.lerp_(y.to(x), share)
    return result


def _copied(decoder: PixelDecoder) -> PixelDecoder:
    copy = PixelDecoder(decoder.shape, device="meta", dtype=torch.float32)
    copy.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in decoder.state_dict().items()}, assign=True)
    return copy.eval().requires_grad_(False)
