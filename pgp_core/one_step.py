"""S1, one step: ``z_H = z_L - UNet(z_L, t)`` (the paper's Section 3.3, after PiSA-SR)."""

from __future__ import annotations

from collections.abc import Callable

import torch

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def one_step(predict: Predict, z_l: torch.Tensor, timestep: int) -> torch.Tensor:
    """Restore in one UNet call.

    Args:
        predict: ``predict(x, t)``, the UNet's raw output with adapter, PEAM and LoRA in place; no noise is
            added and nothing is scaled by the schedule.
        z_l: ``(B, C, h, w)`` LQ latent, scaled as the model wants it.
        timestep: the one that the model was distilled at.

    Returns:
        z_H, scaled like z_l.
    """
    return z_l - predict(z_l, torch.full((z_l.shape[0],), timestep, device=z_l.device))
