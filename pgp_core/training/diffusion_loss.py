"""What fine-tuning minimises: the error of the UNet's prediction at a random timestep."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import schedule
from .subject import Batch, Subject


@dataclass(frozen=True)
class DiffusionLoss:
    """Mean error of the prediction, over timesteps drawn uniformly (FaithDiff's loss is ``power`` 1).

    Attributes:
        power: 1 for the mean absolute, 2 for the mean squared error.
        timesteps: first and last that are drawn. The last few hundred alone make a regression of a residual
            latent from the LQ picture, which teaches the conditioning fast.
        stratified: one timestep from each of as many equal strata as the batch has samples: the same
            distribution with less variance.
        noise_offset: standard deviation of a constant that is added to each channel of the noise; it belongs to
            what is predicted.
        prompt_dropout: share of samples with the negative prompt. Where the subject says ``negatives``, their
            target is the LQ canvas (S3Diff's online negatives), else HQ as for all.
        drop_base: share of samples without the LQ that is added at ``conv_in``, so that PEAM learns to bring the
            LQ by itself.
        latent_std: standard deviation of the clean latent; the squared error of v-prediction is divided by v's
            variance under it. 0 weighs all timesteps alike.
    """

    power: int = 1
    timesteps: tuple[int, int] = (0, schedule.TRAIN_STEPS - 1)
    stratified: bool = False
    noise_offset: float = 0.0
    prompt_dropout: float = 0.0
    drop_base: float = 0.0
    latent_std: float = 0.0

    def __call__(self, subject: Subject, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        """The loss of a batch, which is on the subject's device; all randomness comes from the generator (CPU)."""
        n, device = len(batch), batch.hq.device
        positive = torch.rand(n, generator=generator) >= self.prompt_dropout
        z_lq, z_hq = subject.encode(batch.lq), subject.encode(batch.hq)
        if subject.negatives:
            z_hq = torch.where(positive.to(device).view(-1, 1, 1, 1), z_hq, z_lq)
        x0 = subject.denoised(z_lq, z_hq)
        noise = torch.randn(x0.shape, generator=generator)
        if self.noise_offset:
            noise = noise + self.noise_offset * torch.randn(*x0.shape[:2], 1, 1, generator=generator)
        noise, t = noise.to(device), self._timesteps(n, generator).to(device)
        goal = schedule.target(subject.prediction, x0, noise, t)
        base = torch.rand(n, generator=generator) >= self.drop_base if self.drop_base else None
        conditioning = subject.conditioning(batch, positive.to(device))
        out = subject(schedule.add_noise(x0, noise, t), t, batch.lq, conditioning, base)
        error = (out - goal).abs().pow(self.power)
        if self.latent_std and subject.prediction == "v_prediction":
            a = schedule.alphas_cumprod().to(device)[t].view(-1, 1, 1, 1)
            error = error / (a + (1 - a) * self.latent_std**2).pow(self.power / 2)
        return error.mean()

    def _timesteps(self, n: int, generator: torch.Generator) -> torch.Tensor:
        low, high = self.timesteps
        share = torch.rand(n, generator=generator)
        if self.stratified:
            share = (torch.arange(n) + share) / n
        return (low + share * (high - low + 1)).long().clamp(max=high)
