"""LQ features of canvases of any size, piece by piece: memory for a tile, beside the canvas and what rests.

The LQ adapter has convolutions and a pooling only, so tiles with a halo of what its layers see give what the whole
canvas gives, to rounding. The LQ encoder has GroupNorms and an attention over all positions. FaithDiff's authors take
each tile for a picture of its own; its norms then stretch a flat tile (22 times the gradient energy on a half flat
picture), and features differ by 0.17 to 0.21 of their deviation in a narrow encoder with random weights. Here a canvas
is taken through the encoder stage by stage (:mod:`.canvas`): norms have the statistics of the whole canvas, and
features are the untiled ones, to rounding.

What that takes: between stages maps rest in RAM, 48 numbers per pixel of the canvas with SDXL's channels, 1.6 GB for
4096 x 4096 in half precision and 3.2 GB in float32. A norm takes a pass over all tiles that repeats what lies between
it and the last map that rests, 1.9 times the untiled multiplications in all; overlaps of a quarter take tiles of their
own as much (1.6 to 2.3 times). On a CPU, 512 x 512 took SDXL's channels 25.7 s and 249 MB in tiles of 256, 25.3 s and
310 MB in tiles that are pictures of their own, 10.6 s and 822 MB untiled; halos weigh less in larger tiles.

The attention is over the whole canvas, up to 16 tiles' pixels (4096 x 4096): there it costs about as many
multiplications as all else. Keys of more would take more memory than a tile; then positions attend to every second row
and column, or every fourth, and so on. In an encoder with random weights that changed features by 0.05 to 0.07 of their
deviation, and tiles that hold as many keys by 0.11 to 0.15; where attention was sharpened, both by 0.4 to 0.6.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, TypeVar

import torch
import torch.nn.functional as F

from ...progress import Say
from ...tiling import Fitting, Tile, out_of_memory
from ..lq_adapter import LQAdapter
from .canvas import Area, Canvas, CanvasStages
from .stages import Stage

_log = logging.getLogger(__name__)

#: Side of the LQ encoder's tiles in pixels, FaithDiff's; for memory alone.
ENCODER_TILE = 1024
#: Side of the LQ adapter's tiles in pixels; for memory alone.
ADAPTER_TILE = 2048

#: From a piece of the canvas to what a part makes of it.
Make = Callable[[torch.Tensor], torch.Tensor]
T = TypeVar("T")


class LQTiles:
    """Where LQ features are made and kept, and from tiles of which size; for :meth:`..module.Guidance.features`.

    Canvases of no more pixels than a tile are not cut, nor batches of no more taken one by one. Where memory runs out,
    a canvas is begun again with tiles of half the size; an object remembers what fitted, so use one for all pictures of
    a run. No gradient passes.

    Args:
        device: where the parts compute; by default where the canvas is.
        rest: where finished features are put, and what the encoder keeps until then of a canvas that is cut; by default
            where they were made if the canvas was not cut, else RAM.
        tile: side of the LQ encoder's tiles in pixels.
        adapter_tile: of the LQ adapter's.
        say: told in one line what is worth knowing and no error.
        free: called after memory ran out, to give some back.
        done: called after each tile, in every pass; may raise, to stop.
    """

    def __init__(
        self,
        device: torch.device | str | None = None,
        rest: torch.device | str | None = None,
        tile: int = ENCODER_TILE,
        adapter_tile: int = ADAPTER_TILE,
        say: Say = _log.warning,
        free: Callable[[], None] = lambda: None,
        done: Callable[[], None] = lambda: None,
    ):
        self.device, self.rest = device, rest
        #: Sides in pixels at present.
        self.tile, self.adapter_tile = tile, adapter_tile
        self._say, self._free, self._done = say, free, done
        self._overflowed = self._thin = False

    @torch.no_grad()
    def adapter(
        self, adapter: LQAdapter, lq: torch.Tensor, levels: Collection[int], ranged: Make = lambda rgb: rgb
    ) -> dict[int, torch.Tensor]:
        """The LQ adapter's features; the same for every tile size, to rounding.

        Args:
            lq: ``(B, 3, H, W)`` RGB canvas in [0, 1], on any device.
            levels: which levels are wanted.
            ranged: from a piece of the canvas to the range that the adapter takes.

        Returns:
            ``(B, C_i, ceil(H / s_i), ceil(W / s_i))`` per wanted level.
        """
        fitting = self._fitting("adapter", self.adapter_tile, adapter.unshuffle)

        def attempt(pictures: torch.Tensor, tiles: list[Tile]) -> dict[int, torch.Tensor]:
            made: dict[int, torch.Tensor] = {}
            for tile in tiles:
                piece, top, left = _with_halo(pictures, tile, adapter.halo, adapter.unshuffle)
                features = adapter(ranged(self._taken(piece)))
                for level in levels:
                    if tile.whole:
                        made[level] = self._put(features[level], cut=False)
                        continue
                    scale = adapter.scales[level]
                    if level not in made:
                        made[level] = self._empty(features[level], *(-(-n // scale) for n in tile.of))
                    here = made[level][_within(tile, scale)]
                    here.copy_(features[level][_within(tile, scale, top, left)])
                self._done()
            return made

        parts = fitting.each(lq, attempt)
        self.adapter_tile = fitting.pixels
        return {level: _joined([p[level] for p in parts]) for level in levels}

    @torch.no_grad()
    def encoder(
        self, encode: Make, stages: Sequence[Stage], lq: torch.Tensor, dtype: torch.dtype | None = None
    ) -> torch.Tensor:
        """Features of the LQ encoder with the alignment's condition.

        Args:
            encode: of RGB in [-1, 1], ``(B, 3, h, w)``, to ``(B, C, ceil(h / factor), ceil(w / factor))``.
            stages: the same in stages, whose strides make up the factor.
            lq: ``(B, 3, H, W)`` RGB canvas in [0, 1], on any device.
            dtype: what ``encode`` computes in where its input decides that; what overflows is run again in float32. By
                default lq's, and nothing is run again.

        Returns:
            ``(B, C, ceil(H / factor), ceil(W / factor))`` in what ``encode`` returns.
        """
        factor = math.prod(stage.stride for stage in stages)
        fitting = self._fitting("encoder", self.tile, factor)
        overflowed = None if dtype in (None, torch.float32) else partial(self._overflows, dtype)

        def attempt(pictures: torch.Tensor, tiles: list[Tile]) -> torch.Tensor:
            if len(tiles) == 1:
                return self._put(self._encoded(encode, pictures, dtype), cut=False)
            run = CanvasStages(stages, fitting.pixels, self._taken, self._empty, self._done, self._thinned)
            out = run(self._canvas(pictures, factor, dtype or pictures.dtype), overflowed)
            return self._judged(out) if overflowed is not None and out.dtype == torch.float32 else out

        parts = fitting.each(lq, attempt)
        self.tile = fitting.pixels
        return _joined(parts)

    def _canvas(self, pictures: torch.Tensor, factor: int, dtype: torch.dtype) -> Canvas:
        """Pictures in the encoder's range with sides that the factor divides."""
        height, width = (-(-n // factor) * factor for n in pictures.shape[-2:])

        def piece(area: Area, dtype: torch.dtype) -> torch.Tensor:
            rgb = (self._taken(pictures[..., area[0], area[1]]) * 2 - 1).to(dtype)
            down, across = (s.stop - s.start - n for s, n in zip(area, rgb.shape[-2:], strict=True))
            return F.pad(rgb, (0, across, 0, down), mode="replicate") if down or across else rgb

        return Canvas(piece, height, width, dtype)

    def _fitting(self, part: str, tile: int, unit: int) -> _Fitting:
        def halved(pixels: int) -> None:
            self._say(f"memory ran out in the LQ {part}: it goes on in tiles of {pixels} x {pixels} pixels")

        return _Fitting(tile, unit, halved, self._free)

    def _encoded(self, encode: Make, piece: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
        rgb = self._taken(piece) * 2 - 1
        out = encode(rgb.to(dtype or rgb.dtype))
        if dtype in (None, torch.float32) or bool(out.isfinite().all()):
            return out
        self._overflows(dtype)
        del out
        return self._judged(encode(rgb.float()))

    def _overflows(self, dtype: torch.dtype | None) -> None:
        if not self._overflowed:
            name = str(dtype).removeprefix("torch.")
            self._say(f"the LQ encoder overflowed in {name}; what overflows is run again in float32")
        self._overflowed = True

    def _judged(self, out: torch.Tensor) -> torch.Tensor:
        """What float32 made."""
        if not bool(out.isfinite().all()):
            self._say("the LQ encoder's numbers are not finite in float32 either: its file or the picture is damaged")
        return out

    def _thinned(self, share: int) -> None:
        if not self._thin:
            self._say(
                f"the picture is large for the LQ encoder's tiles: its attention looks at one position in {share}; "
                "all else is as for the whole picture"
            )
        self._thin = True

    def _taken(self, piece: torch.Tensor) -> torch.Tensor:
        return piece.to(self.device or piece.device)

    def _put(self, features: torch.Tensor, cut: bool) -> torch.Tensor:
        return features.to(self.rest or ("cpu" if cut else features.device))

    def _empty(self, like: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return torch.empty(*like.shape[:2], height, width, dtype=like.dtype, device=self.rest or "cpu")


class _Fitting(Fitting):
    """Sizes in pixels, and no tiles as long as there are no more pixels than in one.

    Args:
        pixels: side of a tile.
        unit: pixels per position.
        said: told the new side in pixels, once a whole run has fitted.
    """

    def __init__(self, pixels: int, unit: int, said: Callable[[int], None], free: Callable[[], None]):
        super().__init__(pixels // unit, 0, lambda _: None, free)
        self._unit, self._said = unit, said

    @property
    def pixels(self) -> int:
        """Side of a tile."""
        return (self.tile or 0) * self._unit

    def tiles(self, height: int, width: int) -> list[Tile]:
        if height * width <= (self.tile or 0) ** 2:
            return [Tile(0, 0, height, width, (height, width))]
        return super().tiles(height, width)

    def each(self, lq: torch.Tensor, attempt: Callable[[torch.Tensor, list[Tile]], T]) -> list[T]:
        """``attempt(pictures, tiles)`` for a batch at once or, where it is larger than a tile, picture by picture."""
        height, width = (-(-n // self._unit) for n in lq.shape[-2:])
        pictures = lq.split(1)
        if len(pictures) > 1 and len(pictures) * height * width <= (self.tile or 0) ** 2:
            try:
                return [attempt(lq, self.tiles(height, width))]
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
            # One by one, before they are cut.
            self._free()
        began = self.tile
        result = self.run(height, width, lambda tiles: [attempt(picture, tiles) for picture in pictures])
        if self.tile != began:
            self._said(self.pixels)
        return result


def _with_halo(canvas: torch.Tensor, tile: Tile, halo: int, unit: int) -> tuple[torch.Tensor, int, int]:
    """A tile's pixels and those up to ``halo`` positions around it, and the first position down and across.

    At the canvas's own lower and right border that is all that is there: its last position may be incomplete.
    """
    top, left = max(0, tile.y - halo), max(0, tile.x - halo)
    bottom, right = tile.y + tile.height + halo, tile.x + tile.width + halo
    return canvas[..., top * unit : bottom * unit, left * unit : right * unit], top, left


def _within(tile: Tile, scale: int, top: int = 0, left: int = 0) -> tuple[Any, ...]:
    """Where a tile lies in features of one position per ``scale`` of the tile's that begin at ``top`` and ``left``."""
    rows, columns = (
        slice(start // scale - origin // scale, -(-(start + length) // scale) - origin // scale)
        for start, length, origin in ((tile.y, tile.height, top), (tile.x, tile.width, left))
    )
    return ..., rows, columns


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
