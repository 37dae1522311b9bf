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
