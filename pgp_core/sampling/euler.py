"""Sampling on diffusers' backbone: Euler with classifier-free guidance, and one step."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch

from .. import schedule
from ..images.wrap import Wrap
from ..progress import Progress, tell
from ..unet.prediction import Predict
from .one_step import one_step
from .options import SampleOptions
from .rules import RESIDUAL

#: Rows of a latent that a step is made of at a time.
_ROWS = 128


def euler(
    denoiser: Predict,
    lq_latent: torch.Tensor,
    prediction: str,
    options: SampleOptions,
    progress: Progress | None = None,
    latent_std: float = 0.0,
    zero_snr: bool = False,
    spacing: str = "leading",
    margin: int = 0,
) -> torch.Tensor:
    """Sample a latent with diffusers' Euler scheduler and FaithDiff's schedule.

    Timesteps are "leading" with offset 1 (951, 901, ..., 1 for 20 steps), ComfyUI's ``ddim_uniform``.

    A start of ``"lr"`` is FaithDiff's own: the noise, as large as a start from noise alone has it, is taken for
    the noise of timestep 999, and the LQ latent added with the weight that a picture has there (0.068 of one; a
    start at that timestep in earnest would have eleven times as much).

    Args:
        denoiser: the UNet's raw output, a :class:`pgp_core.sampling.denoiser.Denoiser`.
        lq_latent: ``(B, C, h, w)``, scaled as the model wants it; its shape and device are the result's.
            A ``"noise"`` start uses nothing else of it.
        prediction: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``.
        progress: called after each step.
        latent_std: see :func:`pgp_core.schedule.start_gain`.
        zero_snr: the model's noise schedule ends in pure noise.
        spacing: of the timesteps, by diffusers' names.
        margin: latent positions of the margins where ``options.wrap`` makes the canvas repeat.

    Raises:
        Cancelled: when ``progress`` returned False.
    """
    from diffusers import EulerDiscreteScheduler

    scheduler: Any = EulerDiscreteScheduler(
        beta_start=schedule.BETA_START,
        beta_end=schedule.BETA_END,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        timestep_spacing=spacing,
        steps_offset=1,
        rescale_betas_zero_snr=zero_snr,
    )
    whole = options.start != "lq" or options.denoise >= 1
    total = options.steps if whole else min(int(options.steps / options.denoise), schedule.TRAIN_STEPS)
    scheduler.set_timesteps(total, device=lq_latent.device)
    timesteps = scheduler.timesteps[-options.steps :]
    scheduler.set_begin_index(total - options.steps)
    sigma = scheduler.sigmas[total - options.steps].to(lq_latent)
    # Margins that begin as what they repeat stay so, as the denoiser's are.
    noise = Wrap(options.wrap).repeated(draw_noise(lq_latent.shape, options.seed), margin).to(lq_latent)
    if options.start == "lr":
        a = scheduler.alphas_cumprod[-1].to(lq_latent)
        x = a.sqrt() * lq_latent + (1 - a).sqrt() * (sigma**2 + 1).sqrt() * noise
    else:
        x = noise * sigma * schedule.start_gain(float(sigma), latent_std) + (lq_latent if options.start == "lq" else 0)
    # As large as the latent, and no step needs it.
    del noise
    for i, t in enumerate(timesteps):
        out = denoiser(scheduler.scale_model_input(x, t), t.expand(x.shape[0]))
        x = _stepped(scheduler, out, t, x)
        # As large as the latent, and not to be held through the next step.
        del out
        tell(progress, i + 1, len(timesteps))
    return x


def _stepped(scheduler: Any, out: torch.Tensor, t: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The scheduler's next latent. Each position is by itself, so strips of rows give the same, bit for bit; all at
    once would take four more latents, and nano's is as large as the canvas."""
    if x.shape[-2] <= _ROWS:
        result: torch.Tensor = scheduler.step(out, t, x, return_dict=False)[0]
        return result
    strips = list(zip(out.split(_ROWS, -2), x.split(_ROWS, -2), strict=True))
    for part, strip in strips[:-1]:
        # A scheduler counts its steps; a copy of it keeps its own count.
        strip.copy_(copy(scheduler).step(part, t, strip, return_dict=False)[0])
    part, strip = strips[-1]
    strip.copy_(scheduler.step(part, t, strip, return_dict=False)[0])
    return x


def restore_once(
    predict: Predict,
    lq_latent: torch.Tensor,
    timestep: int,
    progress: Progress | None = None,
    rule: str = RESIDUAL,
) -> torch.Tensor:
    """:func:`pgp_core.sampling.one_step.one_step` with progress; ``predict`` is a
    :class:`pgp_core.sampling.denoiser.Denoiser`, or made of some."""
    z_h = one_step(predict, lq_latent, timestep, rule)
    tell(progress, 1, 1)
    return z_h


def draw_noise(shape: Any, seed: int) -> torch.Tensor:
    """Start noise, float32 on the CPU, from a generator of its own."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
