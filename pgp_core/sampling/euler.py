"""Sampling outside ComfyUI: Euler with classifier-free guidance, and one step."""

from __future__ import annotations

from typing import Any

import torch

from .. import schedule
from ..images.wrap import Wrap
from ..progress import Progress, tell
from ..unet.prediction import Predict
from .noise_levels import NoiseLevels
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
    """Sample a latent with Euler's steps and FaithDiff's schedule, as diffusers' scheduler does.

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
    whole = options.start != "lq" or options.denoise >= 1
    total = options.steps if whole else min(int(options.steps / options.denoise), schedule.TRAIN_STEPS)
    levels = NoiseLevels.of(options.steps, spacing, zero_snr, total)
    sigma = levels.sigmas[0]
    # Margins that begin as what they repeat stay so, as the denoiser's are.
    noise = Wrap(options.wrap).repeated(draw_noise(lq_latent.shape, options.seed), margin).to(lq_latent)
    if options.start == "lr":
        a = levels.last_alpha
        x = a**0.5 * lq_latent + ((1 - a) * (sigma**2 + 1)) ** 0.5 * noise
    else:
        x = noise * (sigma * schedule.start_gain(sigma, latent_std)) + (lq_latent if options.start == "lq" else 0)
    # As large as the latent, and no step needs it.
    del noise
    for i, timestep in enumerate(levels.timesteps):
        t = torch.full((x.shape[0],), timestep, dtype=torch.float32, device=x.device)
        out = denoiser(x / (levels.sigmas[i] ** 2 + 1) ** 0.5, t)
        _step(x, out, *levels.step(prediction, i))
        # As large as the latent, and not to be held through the next step.
        del out
        tell(progress, i + 1, options.steps)
    return x


def _step(x: torch.Tensor, out: torch.Tensor, a: float, b: float) -> None:
    """``x`` becomes ``a * x + b * out``, computed in float32 at least. In strips of rows: all at once would take
    two more latents, and nano's is as large as the canvas."""
    exact = torch.promote_types(x.dtype, torch.float32)
    for strip, part in zip(x.split(_ROWS, -2), out.split(_ROWS, -2), strict=True):
        strip.copy_(strip.to(exact) * a + part.to(exact) * b)


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
