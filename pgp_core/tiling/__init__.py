"""A latent that is too large for one UNet call, in overlapping tiles that are blended at every step."""

from .automatic import automatic
from .blended import blended
from .difficulty import difficulty
from .fitting import Fitting, out_of_memory
from .grid import STEP, Tile, grid
from .groups import Groups, Split, start_sigma
from .heat import heat
from .memory import first_tile
from .options import Tiling
from .window import check_blend, window

__all__ = [
    "STEP",
    "Fitting",
    "Groups",
    "Split",
    "Tile",
    "Tiling",
    "automatic",
    "blended",
    "check_blend",
    "difficulty",
    "first_tile",
    "grid",
    "heat",
    "out_of_memory",
    "start_sigma",
    "window",
]
