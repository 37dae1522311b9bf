"""Sampling on diffusers' backbone: Euler with classifier-free guidance, and one step."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import schedule
from ..errors import PGPError
from ..images.wrap import Wrap
from ..number import MAX_SEED, number
from ..progress import Progress, tell
from ..tiling import Tiling
from ..unet.prediction import Predict
from .one_step import one_step

#: What sampling may start from, see :class:`SampleOptions`.
STARTS = ("noise", "lq", "lr")
#: Rows of a latent that a step is made of at a time.
_ROWS = 128


@dataclass(frozen=True)
class SampleOptions:
    """How to sample.

    Attributes:
        steps: Euler steps.
        cfg: classifier-free guidance scale; 1 makes one UNet call a step, else two in one batch.
        seed: of the start noise, drawn on the CPU in float32, so that it is the same on every device and
            equals ComfyUI's for the same seed and shape.
        start: ``"noise"`` starts from noise alone; ``"lq"`` from the LQ latent with noise added; ``"lr"`` as
            FaithDiff does, from noise with a little of the LQ latent (see :func:`euler`).
        denoise: share of the noise range that an ``"lq"`` start goes through, 0 to 1 (ComfyUI's "denoise").
        strength: of the guidance, 0 to 1.
        start_percent, end_percent: part of the sampling in which the guidance works, as shares of the
            timesteps from noise to picture.
        tiling: what is done with a latent that is too large for one UNet call.
        wrap: one of :data:`pgp_core.images.wrap.WRAPS`: along which axes the canvas repeats. It then has
            the margins that :func:`pgp_core.images.canvas.canvas` makes.
    """

    steps: int = 20
    cfg: float = 5.0
    seed: int = 0
    start: str = "noise"
    denoise: float = 1.0
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0
    tiling: Tiling = field(default_factory=Tiling)
    wrap: str = "none"

    def __post_init__(self) -> None:
        number(self.steps, "steps must be", 1, schedule.TRAIN_STEPS, whole=True)
        number(self.cfg, "cfg must be", 0, 100)
        number(self.seed, "the seed must be", 0, MAX_SEED, whole=True)
        if self.start not in STARTS:
            raise PGPError(f"start is one of {', '.join(STARTS)}, not {self.start!r}")
        Wrap(self.wrap)
        number(self.denoise, "denoise must be", above=0, high=1)
        number(self.strength, "strength must be", 0, 1)
        for name in ("start_percent", "end_percent"):
            number(getattr(self, name), "the guidance's range must be within", 0, 1)
        if self.start_percent > self.end_percent:
            raise PGPError(
                f"the guidance's range must be within 0 to 1, not {self.start_percent} to {self.end_percent}"
            )


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
    predict: Predict, lq_latent: torch.Tensor, timestep: int, progress: Progress | None = None
) -> torch.Tensor:
    """:func:`pgp_core.sampling.one_step.one_step` with progress; ``predict`` is a
    :class:`pgp_core.sampling.denoiser.Denoiser`, or made of some."""
    z_h = one_step(predict, lq_latent, timestep)
    tell(progress, 1, 1)
    return z_h


def draw_noise(shape: Any, seed: int) -> torch.Tensor:
    """Start noise, float32 on the CPU, from a generator of its own."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
