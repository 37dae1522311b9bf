"""A latent that is too large for one UNet call, in overlapping tiles that are blended at every step."""

from .blended import blended
from .fitting import Fitting, out_of_memory
from .grid import STEP, Tile, grid
from .memory import first_tile, free_memory
from .options import PHASES, Tiling
from .whole_phase import canvas_phase
from .window import BLENDS, check_blend, window

__all__ = [
    "BLENDS",
    "PHASES",
    "STEP",
    "Fitting",
    "Tile",
    "Tiling",
    "blended",
    "canvas_phase",
    "check_blend",
    "first_tile",
    "free_memory",
    "grid",
    "out_of_memory",
    "window",
]
