"""Stages of a network over a whole canvas, piece by piece, as if it had been taken at once.

Every norm has the whole canvas's statistics: they are gathered in a pass over all pieces that runs the stage up to that
norm. Pieces have a halo of what the stage's convolutions see, so a stage's result is the untiled one, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch

from .norms import CanvasNorms, GatheredError, Statistics
from .stages import Stage, own

#: Queries that attend to the whole canvas together: as many as a tile of 1024 x 1024 pixels has.
_QUERIES = 128 * 128

#: Rows and columns of a map.
Area = tuple[slice, slice]


class OverflowedError(Exception):
    """Half precision overflowed."""


@dataclass(frozen=True)
class Canvas:
    """A picture, or a map that rests between two stages.

    Attributes:
        piece: an area's ``(B, C, h, w)`` in a dtype, where it is computed on; not to be changed in place.
        height, width: in positions.
        dtype: to compute in.
    """

    piece: Callable[[Area, torch.dtype], torch.Tensor]
    height: int
    width: int
    dtype: torch.dtype

    def of(self, area: Area) -> torch.Tensor:
        """An area in the dtype to compute in."""
        return self.piece(area, self.dtype)


class CanvasStages:
    """Runs stages over a canvas.

    Args:
        stages: the first has no attention.
        tile: side of the first stage's pieces in positions. No map of a later stage's pieces is larger than those of
            the first, nor are the keys of an attention: where those of all positions would be, it is to every second
            row and column, or every fourth, and so on.
        taken: from a part of what rests to the same where it is computed on.
        empty: ``(like, height, width)`` to a map that can rest.
        done: called after each piece, in every pass.
        thinned: called with one in how many positions is attended to, where not to all.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        tile: int,
        taken: Callable[[torch.Tensor], torch.Tensor],
        empty: Callable[[torch.Tensor, int, int], torch.Tensor],
        done: Callable[[], None],
        thinned: Callable[[int], None],
    ):
        self._stages, self._numbers = stages, tile * tile * stages[0].channels
        self._taken, self._empty, self._done, self._thinned = taken, empty, done, thinned

    def __call__(self, picture: Canvas, overflowed: Callable[[], None] | None) -> torch.Tensor:
        """The last stage's result, where it rests.

        Args:
            picture: with sides that the stages' strides divide.
            overflowed: called when a stage overflowed in half precision; it is then run again and all that follow are
                run in float32. None where layers cannot be given float32.
        """
        canvas, known = picture, None
        made = torch.empty(0)
        for stage, following in zip(self._stages, (*self._stages[1:], None), strict=True):
            run = self._convolved if stage.attention is None else self._attended
            checked = overflowed is not None and canvas.dtype in (torch.float16, torch.bfloat16)
            after: Statistics | None = None
            fine = False
            with suppress(OverflowedError):
                made, after = run(stage, canvas, _norms(stage, known), following, checked)
                fine = True
            if not fine:
                assert overflowed is not None
                overflowed()
                canvas = replace(canvas, dtype=torch.float32)
                made, after = run(stage, canvas, _norms(stage, known), following, False)
            canvas, known = self._resting(made, canvas.dtype), after
        return made

    def _convolved(
        self, stage: Stage, canvas: Canvas, norms: CanvasNorms, following: Stage | None, checked: bool
    ) -> tuple[torch.Tensor, Statistics | None]:
        side = math.isqrt(self._numbers // stage.channels)
        areas = list(_areas(canvas, side, stage.stride))
        if len(areas) == 1:
            # The piece's statistics are the canvas's.
            out = _checked(stage.run(canvas.of(areas[0]), own), checked)
            made = self._empty(out, canvas.height // stage.stride, canvas.width // stage.stride)
            made.copy_(out)
            self._done()
            return made, None
        halo = -(-stage.halo // stage.stride) * stage.stride
        writing = _Writing(self._empty, canvas, stage.stride, following)

        def take(area: Area) -> None:
            around, norms.inner = _with_halo(area, halo, canvas)
            out = _checked(stage.run(canvas.of(around), norms), checked)
            writing.write(area, out[_finer(norms.inner, stage.stride)])

        while self._missed(take, areas, norms, checked):
            pass
        return writing.made, writing.statistics

    def _attended(
        self, stage: Stage, canvas: Canvas, norms: CanvasNorms, following: Stage | None, checked: bool
    ) -> tuple[torch.Tensor, Statistics | None]:
        layer = stage.attention
        bands = list(_bands(canvas, max(1, _QUERIES // canvas.width)))

        def normed(area: Area) -> torch.Tensor:
            return norms(layer.group_norm, canvas.of(area))

        if layer.group_norm not in norms.known:
            self._missed(normed, bands, norms, checked)
        writing = _Writing(self._empty, canvas, 1, following)
        step = 1
        while -(-canvas.height // step) * -(-canvas.width // step) * stage.channels > self._numbers:
            step *= 2
        if step > 1:
            self._thinned(step * step)
        keys, values = self._context(layer, normed, bands, canvas, step)
        for area in _bands(canvas, max(1, _queries(keys) // canvas.width)):
            x = canvas.of(area)
            out = x + layer.answer(norms(layer.group_norm, x), keys, values)
            writing.write(area, _checked(out, checked))
            self._done()
        return writing.made, writing.statistics

    def _context(
        self, layer: Any, normed: Callable[[Area], torch.Tensor], bands: list[Area], canvas: Canvas, step: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of every ``step``-th row and column, laid out as the layer's own."""
        whole: list[torch.Tensor] = []
        for area in bands:
            top, bottom = (-(-n // step) for n in (area[0].start, area[0].stop))
            parts = layer.context(normed(area)[..., top * step - area[0].start :: step, ::step])
            if not whole:
                size = -(-canvas.height // step), -(-canvas.width // step)
                whole = [p.new_empty(len(p), *size, p.shape[1]).movedim(-1, 1) for p in parts]
            for made, part in zip(whole, parts, strict=True):
                made[..., top:bottom, :] = part
            self._done()
        return whole[0], whole[1]

    def _missed(self, take: Callable[[Area], Any], areas: list[Area], norms: CanvasNorms, checked: bool) -> bool:
        """A pass of ``take`` over all areas, and whether a norm's statistics were missing, which are then known."""
        for area in areas:
            with suppress(GatheredError):
                take(area)
            self._done()
        statistics = norms.gathered()
        if checked and statistics is not None and not statistics.finite:
            raise OverflowedError
        return statistics is not None

    def _resting(self, made: torch.Tensor, dtype: torch.dtype) -> Canvas:
        """What a stage made, as the next one's canvas."""

        def piece(area: Area, dtype: torch.dtype) -> torch.Tensor:
            return self._taken(made[..., area[0], area[1]]).to(dtype)

        return Canvas(piece, made.shape[-2], made.shape[-1], dtype)


class _Writing:
    """A result that is put together out of areas, and its statistics if the following stage begins with a norm.

    Attributes:
        made: the result, where it rests.
        statistics: of all that was written, or None.
    """

    def __init__(
        self,
        empty: Callable[[torch.Tensor, int, int], torch.Tensor],
        canvas: Canvas,
        stride: int,
        following: Stage | None,
    ):
        self.made = torch.empty(0)
        first = None if following is None else following.first
        self.statistics = None if first is None else Statistics.of(first)
        self._empty, self._stride, self._size = empty, stride, (canvas.height // stride, canvas.width // stride)

    def write(self, area: Area, out: torch.Tensor) -> None:
        """What is made of an area of the input."""
        if not self.made.numel():
            self.made = self._empty(out, *self._size)
        self.made[_finer((..., *area), self._stride)] = out.to(self.made.device)
        if self.statistics is not None:
            self.statistics.add(out)


def _norms(stage: Stage, known: Statistics | None) -> CanvasNorms:
    norms = CanvasNorms()
    if stage.first is not None and known is not None:
        norms.known[stage.first] = known
    return norms


def _checked(out: torch.Tensor, checked: bool) -> torch.Tensor:
    if checked and not bool(out.isfinite().all()):
        raise OverflowedError
    return out


def _queries(keys: torch.Tensor) -> int:
    """How many positions attend together."""
    if keys.device.type in ("cuda", "cpu"):
        return _QUERIES
    # Where attention may keep all scores, no more of them than such a tile has.
    return max(1, _QUERIES * _QUERIES // keys[0, 0].numel())


def _areas(canvas: Canvas, side: int, unit: int) -> Iterator[Area]:
    """About equal areas of sides of at most ``side``, on multiples of ``unit``."""
    for rows in _cut(canvas.height, side, unit):
        for columns in _cut(canvas.width, side, unit):
            yield rows, columns


def _bands(canvas: Canvas, rows: int) -> Iterator[Area]:
    for part in _cut(canvas.height, rows, 1):
        yield part, slice(0, canvas.width)


def _cut(size: int, side: int, unit: int) -> Iterator[slice]:
    count = -(-size // max(unit, side // unit * unit))
    ends = [size * i // (count * unit) * unit for i in range(count)] + [size]
    yield from (slice(a, b) for a, b in pairwise(ends))


def _with_halo(area: Area, halo: int, canvas: Canvas) -> tuple[Area, tuple[Any, ...]]:
    """An area with its surroundings, as far as the canvas goes, and where in it the area lies."""
    rows, columns = (
        slice(max(0, s.start - halo), min(size, s.stop + halo))
        for s, size in zip(area, (canvas.height, canvas.width), strict=True)
    )
    inner = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(area, (rows, columns), strict=True))
    return (rows, columns), (..., *inner)


def _finer(at: tuple[Any, ...], stride: int) -> tuple[Any, ...]:
    """Rows and columns where there is one position per ``stride``."""
    return (..., *(slice(s.start // stride, s.stop // stride) for s in at[1:]))
