"""A latent that is too large for one UNet call, in overlapping tiles that are blended at every step."""

from .blended import blended
from .fitting import Fitting, out_of_memory
from .grid import STEP, Tile, grid
from .window import BLENDS, check_blend, window

__all__ = ["BLENDS", "STEP", "Fitting", "Tile", "blended", "check_blend", "grid", "out_of_memory", "window"]
