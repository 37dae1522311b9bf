"""Gaussians of any width, the same bits whatever is computed at a time.

Sums of slices, no convolution: those choose their algorithm by the size. Products and sums are apart, as a fused one
would round differently where a processor has it for some elements only.

A wide Gaussian is three narrower ones after each other, whose variances add up: one that brings the picture down to a
coarse grid, one on that grid, and one that brings it up again. The grid's spacing is the standard deviation of the
first and the last, or less: what that leaves of the grid itself is below 1e-6, less than a level of 16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from .wrap import PLAIN, Wrap

#: Standard deviations that are looked at on each side: beyond lie 6e-7 of the weight.
_REACH = 5
#: From here on by a coarse grid.
_WIDE = 12.0
#: Pixels that the coarse grid is apart at most: coarser ones cost more at their borders than they save.
_COARSEST = 32
#: Rows at a time, by default.
STRIP = 256

#: Rows of a picture by their numbers, a 1-D int64 tensor: ``(C, rows, W)`` float32.
Rows = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Axis:
    """One axis of a picture, which goes on beyond its ends: mirrored with the last pixel repeated, or from the start
    again.

    Attributes:
        size: pixels.
        sigma: of the Gaussian along it.
        repeats: whether it goes on from the start.
    """

    size: int
    sigma: float
    repeats: bool

    @property
    def step(self) -> int:
        """Spacing of the coarse grid; 1 where there is none."""
        return min(int(self.sigma / 2), _COARSEST) if self.sigma >= _WIDE else 1

    @property
    def between(self) -> float:
        """Standard deviation on the coarse grid, in its steps."""
        return math.sqrt(self.sigma**2 - 2 * self.step**2) / self.step

    @property
    def beyond(self) -> int:
        """Positions of the coarse grid that the last Gaussian looks at beyond the picture, on each side."""
        return _REACH + 1

    @property
    def cells(self) -> int:
        """Positions of the coarse grid within the picture."""
        return -(-self.size // self.step)

    def fold(self, index: torch.Tensor) -> torch.Tensor:
        """Positions beyond the ends, as positions within."""
        if self.repeats:
            return index % self.size
        index = index % (2 * self.size)
        return torch.minimum(index, 2 * self.size - 1 - index)


def _axis(size: int, sigma: float, repeats: bool) -> _Axis:
    # Wider than this, a Gaussian over the picture and its mirrors is the mean: exp(-2 pi^2) is 3e-9.
    return _Axis(size, min(sigma, float(size if repeats else 2 * size)), repeats)


def smoothed(
    rows: Rows, height: int, width: int, sigma: float, wrap: Wrap = PLAIN, strip: int = STRIP
) -> Iterator[tuple[slice, torch.Tensor]]:
    """A picture under a Gaussian; beyond its borders it is mirrored, the outermost pixels repeated.

    Args:
        rows: gives the picture's rows; it is asked for some at a time, and for some more than once.
        height, width: of the picture.
        sigma: standard deviation in pixels, above 0. If it is larger than the picture, this is the mean.
        wrap: along which axes the picture repeats instead.
        strip: rows at a time.

    Yields:
        rows and their values, ``(C, rows, W)`` float32, from top to bottom.
    """
    across, down = (_axis(n, sigma, dim in wrap.dims) for n, dim in ((width, -1), (height, -2)))
    if down.step == 1:
        reach = _reach(down.sigma)
        for start in range(0, height, strip):
            stop = min(start + strip, height)
            index = down.fold(torch.arange(start - reach, stop + reach))
            yield slice(start, stop), _narrow(_along(rows(index), across), down.sigma, -2, stop - start)
        return
    coarse = _grid(_decimated(rows, across, strip, height), down, -2)
    for start in range(0, height, strip):
        stop = min(start + strip, height)
        part = _fine(coarse, down, -2, torch.arange(start, stop))
        yield slice(start, stop), part if across.step == 1 else _fine(part, across, -1, torch.arange(width))


def _decimated(rows: Rows, across: _Axis, strip: int, height: int) -> torch.Tensor:
    """All rows, each smoothed along itself, and on the coarse grid where there is one: ``(C, H, w)``."""
    parts = []
    for start in range(0, height, strip):
        part = rows(torch.arange(start, min(start + strip, height)))
        parts.append(_along(part, across) if across.step == 1 else _grid(part, across, -1))
    return torch.cat(parts, 1)


def _along(x: torch.Tensor, across: _Axis) -> torch.Tensor:
    """A strip, smoothed along its rows."""
    if across.step > 1:
        return _fine(_grid(x, across, -1), across, -1, torch.arange(across.size))
    reach = _reach(across.sigma)
    index = across.fold(torch.arange(-reach, across.size + reach)).to(x.device)
    return _narrow(x.index_select(-1, index), across.sigma, -1, across.size)


def _narrow(x: torch.Tensor, sigma: float, dim: int, size: int) -> torch.Tensor:
    """A Gaussian along an axis that has its reach beside it on both ends."""
    centre, *weights = _weights(sigma)
    reach = len(weights)
    out = x.narrow(dim, reach, size) * centre
    for i, weight in enumerate(weights, 1):
        pair = x.narrow(dim, reach - i, size) + x.narrow(dim, reach + i, size)
        out += pair.mul_(weight)
    return out


def _grid(x: torch.Tensor, axis: _Axis, dim: int) -> torch.Tensor:
    """The axis on the coarse grid, smoothed there: from ``beyond`` positions before the picture to as many behind."""
    step, spare = axis.step, _reach(axis.between)
    first, count = -axis.beyond - spare, axis.cells + 2 * (axis.beyond + spare)
    at = torch.arange(first, first + count) * step
    centre, *weights = _weights(float(step))

    def taken(offset: int) -> torch.Tensor:
        return x.index_select(dim, axis.fold(at + offset).to(x.device))

    out = taken(0) * centre
    for i, weight in enumerate(weights, 1):
        out += taken(-i).add_(taken(i)).mul_(weight)
    return _narrow(out, axis.between, dim, count - 2 * spare)


def _fine(coarse: torch.Tensor, axis: _Axis, dim: int, at: torch.Tensor) -> torch.Tensor:
    """Pixels at positions along an axis, from the coarse grid."""
    base = torch.div(at, axis.step, rounding_mode="floor")
    taps = range(-_REACH, _REACH + 2)
    distance = (at - base * axis.step).double()[None] / axis.step - torch.tensor(taps).double()[:, None]
    weights = torch.exp(-0.5 * distance.square())
    weights = (weights / weights.sum(0)).float().to(coarse.device)
    shape = (-1, 1) if dim == -2 else (-1,)
    out: torch.Tensor | None = None
    for tap, weight in zip(taps, weights, strict=True):
        term = coarse.index_select(dim, (base + axis.beyond + tap).to(coarse.device)).mul_(weight.view(shape))
        out = term if out is None else out.add_(term)
    assert out is not None
    return out


def _reach(sigma: float) -> int:
    return max(1, math.ceil(_REACH * sigma))


def _weights(sigma: float) -> list[float]:
    """Of the centre, and of the pixels on each side of it, outwards; with their mirror images they add up to 1."""
    half = [math.exp(-0.5 * (i / sigma) ** 2) if i / sigma < 40 else 0.0 for i in range(_reach(sigma) + 1)]
    total = half[0] + 2 * sum(half[1:])
    return [h / total for h in half]
