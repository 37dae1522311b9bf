"""What is minimised: the diffusion loss on the residual latent, and the one-step loss."""

from __future__ import annotations

import torch

from .. import pixel_codec, schedule
from .loop import Batch


class ResidualDiffusionLoss:
    """Mean squared error of the prediction, on the residual latent ``scale * (z_H - z_L)``.

    A share of the samples gets the negative context and the LQ canvas as its target, that is, a residual
    of zero (S3Diff's online negatives).

    Args:
        scale: of the residual; 10 to 12 gives it unit variance.
        timesteps: first and last, between which timesteps are uniform. The last few hundred alone make a
            regression of the residual from the LQ picture, which teaches the conditioning fast.
    """

    def __init__(
        self,
        scale: float,
        prediction: str = "v_prediction",
        negatives: float = 0.1,
        timesteps: tuple[int, int] = (0, schedule.TRAIN_STEPS - 1),
    ):
        self.scale, self.prediction, self.negatives, self.timesteps = scale, prediction, negatives, timesteps

    def __call__(self, model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        lq, hq = batch
        n = len(lq)
        positive = torch.rand(n, generator=generator) >= self.negatives
        x0 = self.scale * (pixel_codec.encode(hq) - pixel_codec.encode(lq)) * positive.view(-1, 1, 1, 1)
        noise = torch.randn(x0.shape, generator=generator)
        # One timestep from each of n equal strata: the same uniform distribution with less variance.
        low, high = self.timesteps
        t = (low + (torch.arange(n) + torch.rand(n, generator=generator)) * ((high - low + 1) / n)).long()
        x = schedule.add_noise(x0, noise, t)
        goal = schedule.target(self.prediction, x0, noise, t)
        channels_last = torch.channels_last
        out = model(x.contiguous(memory_format=channels_last), t, lq.contiguous(memory_format=channels_last), positive)
        return (out - goal).square().mean()


class OneStepLoss:
    """S1, stage 1: ``z_H = z_L - UNet(z_L, t)`` against HQ, in latents scaled as the model wants them.

    Pixel unshuffle is orthogonal up to a factor, so a latent loss is a pixel loss.
    """

    def __init__(self, scale: float, timestep: int, power: int = 1):
        self.scale, self.timestep, self.power = scale, timestep, power

    def __call__(self, model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        lq, hq = batch
        z_l, z_h = self.scale * pixel_codec.encode(lq), self.scale * pixel_codec.encode(hq)
        t = torch.full((len(lq),), self.timestep)
        positive = torch.ones(len(lq), dtype=torch.bool)
        channels_last = torch.channels_last
        out = model(
            z_l.contiguous(memory_format=channels_last), t, lq.contiguous(memory_format=channels_last), positive
        )
        return (z_l - out - z_h).abs().pow(self.power).mean()
