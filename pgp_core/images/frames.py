"""What canvases a model takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """What a canvas has around the picture so that a model can work on it. It reads without PyTorch.

    Attributes:
        multiple: a canvas has sides that are multiples of this many pixels of its own.
        border: pixels of it on each side that are mirrored at least, for models whose colours suffer at the border.
        enlarges: result over canvas. 1: the canvas has the result's size. 4: the model takes the small picture and
            returns four times its size, so a result of twice the size is made from a canvas of half the result's.
    """

    multiple: int
    border: int = 0
    enlarges: int = 1
