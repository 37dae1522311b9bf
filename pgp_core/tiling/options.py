"""What is done with a latent that is too large for one UNet call."""

from __future__ import annotations

from dataclasses import dataclass

from ..choices import PHASES
from ..errors import PGPError
from ..number import number
from .window import check_blend

#: More than any picture has along a side.
MAX_PIXELS = 2**20


@dataclass(frozen=True)
class Tiling:
    """How to tile.

    Attributes:
        tile: side of a tile in pixels; 0 for what :func:`.automatic.automatic` chooses.
        overlap: what neighbours share at least, in pixels.
        blend: one of :data:`pgp_core.choices.BLENDS`.
        phase: one of :data:`pgp_core.choices.PHASES`.
    """

    tile: int = 0
    overlap: int = 128
    blend: str = "cosine"
    phase: str = "tile"

    def __post_init__(self) -> None:
        check_blend(self.blend)
        if self.phase not in PHASES:
            raise PGPError(f"the phase is exchanged over a {' or a '.join(PHASES)}, not {self.phase!r}")
        for name in ("tile", "overlap"):
            number(getattr(self, name), f"{name} must be", 0, MAX_PIXELS, whole=True, unit="pixels")
        if self.tile and self.tile <= self.overlap:
            raise PGPError(
                f"tiles of {self.tile} pixels cannot overlap by {self.overlap}: give larger tiles or less overlap"
            )
