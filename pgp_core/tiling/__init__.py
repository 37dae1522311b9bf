"""A latent that is too large for one UNet call, in overlapping tiles that are blended at every step."""

from .blended import blended
from .difficulty import difficulty
from .fitting import Fitting, out_of_memory
from .grid import STEP, Tile, grid
from .groups import Groups, Split, start_sigma
from .heat import heat
from .window import BLENDS, check_blend, window

__all__ = [
    "BLENDS",
    "STEP",
    "Fitting",
    "Groups",
    "Split",
    "Tile",
    "blended",
    "check_blend",
    "difficulty",
    "grid",
    "heat",
    "out_of_memory",
    "start_sigma",
    "window",
]
