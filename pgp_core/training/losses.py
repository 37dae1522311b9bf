"""S1, stage 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .subject import Batch, Subject


class OneStepLoss:
    """S1, stage 1: ``z_H = z_L - UNet(z_L, t)`` against HQ, in latents scaled as the model wants them.

    Args:
        timestep: at which the one step is made; by default the subject's.
        power: 1 for mean absolute, 2 for mean squared error.
        edges: weight of the same error of the picture's Haar detail, at steps of 1, 2 and 4 pixels. A plain
            pixel loss does not mind that errors change from one latent position to the next, which is seen
            as a grid of 4 pixels.
    """

    def __init__(self, timestep: int | None = None, power: int = 1, edges: float = 0.0):
        self.timestep, self.power, self.edges = timestep, power, edges

    def __call__(self, subject: Subject, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """The loss of a batch; draws nothing."""
        z_l, z_h = subject.encode(batch.lq), subject.encode(batch.hq)
        timestep = subject.s1_timestep if self.timestep is None else self.timestep
        t = torch.full((len(batch),), timestep, device=z_l.device)
        condition = subject.condition(batch, torch.ones(len(batch), dtype=torch.bool, device=z_l.device))
        error = z_l - subject(z_l, t, batch.lq, condition) - z_h
        loss = error.abs().pow(self.power).mean()
        if self.edges:
            # Decoding is affine: the difference of two decoded latents is the error as a picture.
            details = haar_details(subject.decode(error) - subject.decode(torch.zeros_like(error)))
            loss = loss + self.edges * torch.stack([d.abs().pow(self.power).mean() for d in details]).sum()
        return loss


def haar_details(x: torch.Tensor, levels: int = 3) -> list[torch.Tensor]:
    """Undecimated Haar detail: differences of neighbouring boxes of 1, 2, 4, ... pixels, along x and along y.

    Args:
        x: ``(B, C, H, W)``, at least ``2**levels`` on each side.

    Returns:
        two tensors per level, at every position where the pair of boxes lies inside.
    """
    details = []
    for level in range(levels):
        n = 2**level
        box = F.avg_pool2d(x, n, stride=1) if n > 1 else x
        details += [box[..., n:] - box[..., :-n], box[..., n:, :] - box[..., :-n, :]]
    return details
