"""Classifier score distillation, CSD: a frozen diffusion model pulls one step's result towards what its prompt says.

PiSA-SR's form (Sun et al., 2025; the paper's stage 2 follows it), after Yu et al. (2024). The result z is noised,
the frozen *score model* estimates the clean latent twice, and z moves by their difference::

    x0_fake = x0(e(z_t, negative))
    x0_real = x0(e(z_t, negative) + guidance * (e(z_t, positive) - e(z_t, negative)))
    grad    = (x0_fake - x0_real) / mean |z - x0_real|          # the mean is a sample's own
    loss    = mean (z - stopgrad(z - grad))**2

so the loss's gradient in z is ``2 grad / numel``. There is no trained critic, which is the difference from VSD.
"""

from __future__ import annotations

import torch

from .. import schedule
from ..conditioning.conditioning import Conditioning
from .subject import Batch, Subject

#: The least that a sample's gradient is divided by.
_LEAST = 1e-6


class CSD(torch.nn.Module):
    """The loss, and its frozen score model.

    Args:
        score: another model over the same latents: for SDXL the unpruned base, for nano its unpruned stage,
            which sees the LQ canvas. It keeps its own dtype and prediction, and is frozen here.
        guidance: classifier-free guidance scale.
        timesteps: first and last but one that are drawn, as PiSA-SR draws them.
    """

    def __init__(self, score: Subject, guidance: float = 7.5, timesteps: tuple[int, int] = (20, 500)):
        super().__init__()
        self.score = score.eval().requires_grad_(False)
        self.guidance, self.timesteps = guidance, timesteps

    def train(self, mode: bool = True) -> CSD:
        """Stays in evaluation."""
        return super().train(False)

    def forward(self, z_lq: torch.Tensor, z: torch.Tensor, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """The loss.

        Args:
            z_lq: ``(B, C, h, w)``, the LQ canvas's latent.
            z: the restored latent, scaled alike; gradients reach it, and not the score model.
            generator: on the CPU; of timesteps and noise.

        Returns:
            a scalar; zero where the two estimates agree.
        """
        x0 = self.score.denoised(z_lq, z.float())
        grad = self.direction(x0.detach(), batch, generator)
        return torch.nn.functional.mse_loss(x0, (x0 - grad).detach())

    @torch.no_grad()
    def direction(self, x0: torch.Tensor, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """``grad``, in the score model's own space (:meth:`~pgp_core.training.subject.Subject.denoised`)."""
        n, device = len(x0), x0.device
        t = torch.randint(*self.timesteps, (n,), generator=generator).to(device)
        noise = torch.randn(x0.shape, generator=generator).to(device)
        with torch.autocast(device.type, enabled=False):
            x = schedule.add_noise(x0, noise, t)
            positive, negative = (self._predict(x, t, batch, sign) for sign in (True, False))
        guided = negative + self.guidance * (positive - negative)
        real, fake = (schedule.denoised(self.score.prediction, out, x, t) for out in (guided, negative))
        distance = (x0 - real).abs().mean((1, 2, 3), keepdim=True)
        return (fake - real) / distance.clamp(min=_LEAST)

    def _predict(self, x: torch.Tensor, t: torch.Tensor, batch: Batch, positive: bool) -> torch.Tensor:
        """The score model's output in float32, computed in its own dtype."""
        dtype = next(self.score.unet.parameters()).dtype
        told = self.score.conditioning(batch, torch.full((len(x),), positive, device=x.device))
        # Sizes stay in float32: bfloat16 knows no odd numbers above 256.
        told = Conditioning(told.context.to(dtype), told.pooled.to(dtype), told.time_ids)
        out: torch.Tensor = self.score(x.to(dtype), t, batch.lq.to(dtype), told)
        return out.float()
