"""Where the tiles of a latent lie."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import PGPError

#: Tiles start at multiples of this many latent positions, because the UNet halves its features twice: a tile's
#: features then lie where the whole latent's do.
STEP = 4


@dataclass(frozen=True)
class Tile:
    """A rectangle of a latent.

    Attributes:
        y, x: of its first position, multiples of :data:`STEP`.
        height, width: in latent positions.
        of: height and width of the whole latent.
    """

    y: int
    x: int
    height: int
    width: int
    of: tuple[int, int]

    @property
    def whole(self) -> bool:
        """Whether it is all of the latent."""
        return (self.height, self.width) == self.of

    def coarser(self, scale: int) -> Tile:
        """The same rectangle of features that are ``scale`` times coarser, which is 1, 2 or 4; sizes are rounded up."""
        height, width = (-(-n // scale) for n in self.of)
        (top, bottom), (left, right) = (
            _span(self.y, self.height, self.of[0], height),
            _span(self.x, self.width, self.of[1], width),
        )
        return Tile(top, left, bottom - top, right - left, (height, width))

    def crop(self, tensor: torch.Tensor) -> torch.Tensor:
        """What a tensor has within the tile; a view.

        Args:
            tensor: ``(..., H, W)`` over the whole latent, at its scale, coarser by 2, 4, ... or finer, as sizes
                show. Coarser sizes may be rounded up or down.
        """
        height, width = tensor.shape[-2:]
        top, bottom = _span(self.y, self.height, self.of[0], height)
        left, right = _span(self.x, self.width, self.of[1], width)
        return tensor[..., top:bottom, left:right]


def _span(start: int, length: int, whole: int, size: int) -> tuple[int, int]:
    """``start`` to ``start + length`` of ``whole`` positions, where the same extent has ``size`` of them."""
    if size >= whole:
        scale = round(size / whole)
        first, end = start * scale, (start + length) * scale
    else:
        scale = 1 << (round(whole / size) - 1).bit_length()
        first, end = start // scale, -(-(start + length) // scale)
    return first, size if start + length >= whole else end


def grid(height: int, width: int, tile: int, overlap: int) -> list[Tile]:
    """Tiles that cover a latent, row by row; the last of a row or column is shifted back to the edge.

    Args:
        height, width: of the latent.
        tile: side of a tile in latent positions. A side of the latent that is no longer is not cut. A tile at the
            edge is up to three positions longer where that keeps its start on the UNet's grid.
        overlap: what neighbours share at least, in latent positions; rounded up to a multiple of :data:`STEP`.

    Raises:
        PGPError: if the tile is too small for its overlap.
    """
    tile, overlap = tile // STEP * STEP, -(-overlap // STEP) * STEP
    if overlap < 0 or tile < STEP or tile <= overlap:
        raise PGPError(
            f"tiles of {tile} latent positions cannot overlap by {overlap}: give larger tiles or less overlap"
        )
    return [
        Tile(y, x, h, w, (height, width)) for y, h in _cut(height, tile, overlap) for x, w in _cut(width, tile, overlap)
    ]


def _cut(size: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Start and length of each tile along one axis."""
    if size <= tile:
        return [(0, size)]
    last = (size - tile) // STEP * STEP
    starts = [*range(0, last, tile - overlap), last]
    return [(s, tile if s != last else size - s) for s in starts]
