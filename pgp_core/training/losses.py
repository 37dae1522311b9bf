"""What is minimised: the diffusion loss on the residual latent, and the one-step loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .. import pixel_codec, schedule
from .haar_details import haar_details
from .loop import Batch


class ResidualDiffusionLoss:
    """Mean squared error of the prediction, on the residual latent ``scale * (z_H - z_L)``.

    A share of the samples gets the negative context and the LQ canvas as its target, that is, a residual
    of zero (S3Diff's online negatives).

    Args:
        scale: of the residual; 10 to 12 gives it unit variance.
        timesteps: first and last, between which timesteps are uniform. The last few hundred alone make a
            regression of the residual from the LQ picture, which teaches the conditioning fast.
        std: standard deviation of the scaled residual. The squared error of v is divided by v's variance, which
            is 1 at every timestep if this is 1.
        drop_base: share of samples without the guidance's additive sites, so that the PEAMs learn to bring
            the LQ by themselves.
    """

    def __init__(
        self,
        scale: float,
        prediction: str = "v_prediction",
        negatives: float = 0.1,
        timesteps: tuple[int, int] = (0, schedule.TRAIN_STEPS - 1),
        drop_base: float = 0.0,
        std: float = 1.0,
    ):
        self.std = std
        self.scale, self.prediction, self.negatives, self.timesteps = scale, prediction, negatives, timesteps
        self.drop_base = drop_base

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
        base = torch.rand(n, generator=generator) >= self.drop_base if self.drop_base else None
        out = model(x, t, lq, positive, base)
        error = (out - goal).square()
        if self.prediction == "v_prediction":
            a = schedule.alphas_cumprod()[t].view(-1, 1, 1, 1)
            error = error / (a + (1 - a) * self.std**2)
        return error.mean()


class OneStepLoss:
    """S1, stage 1: ``z_H = z_L - UNet(z_L, t)`` against HQ, in latents scaled as the model wants them.

    Pixel unshuffle is orthogonal up to a factor, so a latent loss is a pixel loss.

    Args:
        scale: of the latent, and so of the loss.
        timestep: at which the one step is made.
        power: 1 for mean absolute, 2 for mean squared error.
        edges: weight of the same error of the picture's Haar detail, at steps of 1, 2 and 4 pixels. A plain
            pixel loss does not mind that errors change from one latent position to the next, which is seen
            as a grid of 4 pixels.
    """

    def __init__(self, scale: float, timestep: int, power: int = 1, edges: float = 0.0):
        self.scale, self.timestep, self.power, self.edges = scale, timestep, power, edges

    def __call__(self, model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        lq, hq = batch
        z_l, z_h = self.scale * pixel_codec.encode(lq), self.scale * pixel_codec.encode(hq)
        t = torch.full((len(lq),), self.timestep)
        positive = torch.ones(len(lq), dtype=torch.bool)
        out = model(z_l, t, lq, positive)
        error = z_l - out - z_h
        loss = error.abs().pow(self.power).mean()
        if self.edges:
            details = haar_details(F.pixel_shuffle(error, pixel_codec.FACTOR))
            loss = loss + self.edges * torch.stack([d.abs().pow(self.power).mean() for d in details]).sum()
        return loss
