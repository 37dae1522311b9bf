"""What canvases a model takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Frame:
    """What a canvas has around the picture so that a model can work on it. It reads without PyTorch.

    Attributes:
        multiple: a canvas has sides that are multiples of this many pixels.
        border: pixels on each side that are mirrored at least, for models whose colours suffer at the border.
        enlarges: result over canvas. 1: the canvas has the result's size. 4: the model takes the small picture and
            returns four times its size, so a result of twice the size is made from a canvas of half the result's.
        largest: pixels of a canvas's side that are meant to be done at once; 0 for as many as fit.
    """

    multiple: int
    border: int = 0
    enlarges: int = 1
    largest: int = 0
