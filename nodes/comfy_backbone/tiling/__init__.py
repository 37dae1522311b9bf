"""A MODEL that is called tile by tile, inside one run of any sampler."""

from __future__ import annotations

from .apply import tile_model
from .calls import TiledCalls

__all__ = ["TiledCalls", "tile_model"]
