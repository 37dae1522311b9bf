"""How hard each term pulls at the picture: the norm of its gradient there, by which adversarial terms are weighed.

Without weights such terms pull hundreds of times as hard as a mean absolute error, by a factor that differs from one
network to the next and changes while the discriminator learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

#: How much of the average stays at each step.
SMOOTHING = 0.95
_LEAST = 1e-12
#: The name under which the other terms' pull stands.
OTHERS = "others"


class Pulls:
    """A moving average of each term's pull, one value a step.

    Attributes:
        smoothed: by the term's name, and :data:`OTHERS`.
    """

    def __init__(self) -> None:
        self.smoothed: dict[str, float] = {}

    def take(self, found: Mapping[str, float]) -> None:
        """Count a step in. The first value of a term is its average."""
        for name, value in found.items():
            old = self.smoothed.get(name, value)
            self.smoothed[name] = SMOOTHING * old + (1 - SMOOTHING) * value

    def weight(self, name: str, share: float) -> float:
        """The weight with which a term pulls ``share`` times as hard as the others; 0 before anything is known."""
        if name not in self.smoothed or OTHERS not in self.smoothed:
            return 0.0
        return share * self.smoothed[OTHERS] / max(self.smoothed[name], _LEAST)


def ramp(step: int, alone: int, length: int) -> float:
    """A factor on adversarial weights in step number ``step``, from 0: 0 in the first ``alone`` steps, then rising
    linearly, 1 after ``length`` more."""
    if step < alone:
        return 0.0
    return min(1.0, (step - alone + 1) / length) if length else 1.0


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, picture: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grads[0] * ctx.saved_tensors[0], None, None


def with_gradient(picture: torch.Tensor, value: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A scalar of this value whose gradient on the picture is this one.

    Terms whose gradients were taken apart need not be passed backward through a second time.
    """
    found: torch.Tensor = _WithGradient.apply(picture, value.detach(), gradient.detach())
    return found
