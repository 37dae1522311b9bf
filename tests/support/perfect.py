"""A restorer that gives back what it gets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pgp_core.images.frames import Frame
from pgp_core.restorers.nano.family import NANO


class Perfect:
    """Nano's frame and recipe, and nothing done to the picture.

    Args:
        beside: called with each canvas.
    """

    name, device, recipe = "none", torch.device("cpu"), NANO.recipe()

    def __init__(self, beside: Callable[[torch.Tensor], Any] = lambda _: None, frame: Frame = NANO.frame):
        self.beside, self.frame = beside, frame

    def restore(self, canvas: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self.beside(canvas)
        return canvas.clone()


class Enlarging(Perfect):
    """A restorer that takes the small picture: every pixel of it becomes four times four.

    Args:
        shift: added to every colour, for a colour fix to take away.
    """

    def __init__(self, frame: Frame, beside: Callable[[torch.Tensor], Any] = lambda _: None, shift: float = 0.0):
        super().__init__(beside, frame)
        self.shift = shift

    def restore(self, canvas: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        self.beside(canvas)
        times = self.frame.enlarges
        return canvas.repeat_interleave(times, -1).repeat_interleave(times, -2) + self.shift
