"""One step. S1 has ``z_H = z_L - UNet(z_L, t)`` (the paper's Section 3.3, after PiSA-SR)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..number import number
from ..schedule import denoised
from ..unet.prediction import Predict
from .rules import RESIDUAL, X0


def one_step(predict: Predict, z_l: torch.Tensor, timestep: int, rule: str = RESIDUAL) -> torch.Tensor:
    """Restore in one UNet call.

    Args:
        predict: ``predict(x, t)``, the UNet's raw output with adapter, PEAM and LoRA in place; no noise is
            added and nothing is scaled by the schedule.
        z_l: ``(B, C, h, w)`` LQ latent, scaled as the model wants it.
        timestep: the one that the model was distilled at.
        rule: ``"residual"``: what the UNet outputs is taken away. ``"x0"``: it is the noise in ``z_l`` at that
            timestep, and the clean latent is returned, as in OSEDiff and S3Diff.

    Returns:
        z_H, scaled like z_l.

    Raises:
        ValueError: for another rule.
    """
    t = torch.full((z_l.shape[0],), timestep, device=z_l.device)
    out = predict(z_l, t)
    if rule == RESIDUAL:
        return z_l - out
    if rule == X0:
        return denoised("epsilon", out, z_l, t)
    raise ValueError(f"one step is made by {RESIDUAL} or {X0}, not by {rule!r}")


@dataclass(frozen=True)
class Dial:
    """PiSA-SR's two strengths, for a model with two LoRAs: one for pixels, one for semantics on top of it.

    The prediction becomes ``pixel * p + semantic * (b - p)``, where p is what the UNet predicts with the pixel LoRA
    alone and b with both. It is linear in either strength, which strengths on the LoRAs' weights are not.

    Attributes:
        pixel: how much of the degradation is taken away, 0 to 10; 0 none, 1 as trained.
        semantic: how much detail is added, 0 to 10; 0 none, 1 as trained.
    """

    pixel: float = 1.0
    semantic: float = 1.0

    def __post_init__(self) -> None:
        for name in ("pixel", "semantic"):
            number(getattr(self, name), f"the {name} strength must be", 0, 10)

    @property
    def merged(self) -> bool:
        """Whether one pass with both LoRAs is all that it takes: ``s * p + s * (b - p) = s * b``."""
        return self.pixel == self.semantic


def dialled(pixel: Predict, both: Predict, dial: Dial) -> Predict:
    """One prediction of two.

    Args:
        pixel: with the pixel LoRA alone; not called where the dial is merged.
        both: with both LoRAs; not called where the semantic strength is 0.
    """

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if dial.merged:
            return dial.pixel * both(x, t)
        if not dial.semantic:
            return dial.pixel * pixel(x, t)
        b = both(x, t)
        p = pixel(x, t)
        return dial.pixel * p + dial.semantic * (b - p)

    return predict
