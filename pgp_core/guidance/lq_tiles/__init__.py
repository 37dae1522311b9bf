"""LQ features of canvases of any size, as if the canvas had been taken at once: :class:`.tiles.LQTiles`."""

from .tiles import ADAPTER_TILE, ENCODER_TILE, LQTiles

__all__ = ["ADAPTER_TILE", "ENCODER_TILE", "LQTiles"]
