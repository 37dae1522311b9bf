"""What is done with a latent that is too large for one UNet call."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import PGPError
from .window import check_blend

#: ``tile``: PEAM exchanges the phase of each tile's features by itself. ``canvas``: of all features at once, for which
#: the UNet's first blocks are run once more over all tiles.
PHASES = ("tile", "canvas")


@dataclass(frozen=True)
class Tiling:
    """How to tile.

    Attributes:
        tile: side of a tile in pixels; 0 for what :func:`.automatic.automatic` chooses.
        overlap: what neighbours share at least, in pixels.
        blend: one of :data:`.window.BLENDS`.
        phase: one of :data:`PHASES`.
    """

    tile: int = 0
    overlap: int = 128
    blend: str = "cosine"
    phase: str = "tile"

    def __post_init__(self) -> None:
        check_blend(self.blend)
        if self.phase not in PHASES:
            raise PGPError(f"the phase is exchanged over a {' or a '.join(PHASES)}, not {self.phase!r}")
        if self.tile < 0 or self.overlap < 0:
            raise PGPError(f"tile and overlap must be 0 or more pixels, not {self.tile} and {self.overlap}")
        if self.tile and self.tile <= self.overlap:
            raise PGPError(
                f"tiles of {self.tile} pixels cannot overlap by {self.overlap}: give larger tiles or less overlap"
            )
