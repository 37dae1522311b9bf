"""Sampling on diffusers' backbone: Euler with classifier-free guidance, and one step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from . import schedule
from .errors import Cancelled, PGPError
from .guidance import Guidance
from .one_step import Predict, one_step
from .unet_diffusers import guided

#: ``progress(done, total)`` after each step; return False to cancel.
Progress = Callable[[int, int], "bool | None"]
#: What sampling may start from, see :class:`SampleOptions`.
STARTS = ("noise", "lq", "lr")


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
    """

    steps: int = 20
    cfg: float = 5.0
    seed: int = 0
    start: str = "noise"
    denoise: float = 1.0
    strength: float = 1.0
    start_percent: float = 0.0
    end_percent: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= schedule.TRAIN_STEPS:
            raise PGPError(f"steps must be 1 to {schedule.TRAIN_STEPS}, not {self.steps}")
        if not 0 <= self.cfg <= 100:
            raise PGPError(f"cfg must be 0 to 100, not {self.cfg}")
        if self.start not in STARTS:
            raise PGPError(f"start is one of {', '.join(STARTS)}, not {self.start!r}")
        if not 0 < self.denoise <= 1:
            raise PGPError(f"denoise must be above 0 and at most 1, not {self.denoise}")
        if not 0 <= self.strength <= 1:
            raise PGPError(f"strength must be 0 to 1, not {self.strength}")
        if not 0 <= self.start_percent <= self.end_percent <= 1:
            raise PGPError(
                f"the guidance's range must be within 0 to 1, not {self.start_percent} to {self.end_percent}"
            )


@dataclass(frozen=True)
class Conditioning:
    """Cross-attention tokens and pooled vector of one prompt (or learned context).

    Attributes:
        context: ``(1, tokens, context_dim)``.
        pooled: ``(1, pooled_dim)``.
        time_ids: SDXL's six sizes in pixels.
    """

    context: torch.Tensor
    pooled: torch.Tensor
    time_ids: tuple[float, float, float, float, float, float]


class Denoiser:
    """A guided UNet's raw output with classifier-free guidance, for latents of one picture (or a batch).

    Args:
        guidance: None for the UNet alone.
        features: from :meth:`Guidance.features`, computed once per picture.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        guidance: Guidance | None,
        features: tuple[torch.Tensor, ...],
        positive: Conditioning,
        negative: Conditioning | None,
        options: SampleOptions,
        exchange: bool = True,
    ):
        self.unet, self.guidance, self.features = unet, guidance, features
        self.positive, self.negative, self.options, self.exchange = positive, negative, options, exchange

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """``uncond + cfg * (cond - uncond)``; the batch is [uncond, cond], as everywhere in the field.

        Args:
            x: ``(B, C, h, w)``; the result has its dtype, whatever the UNet's is.
            t: ``(B,)`` timesteps, all equal.
        """
        prompts = [self.positive]
        if self.options.cfg != 1 and self.negative is not None:
            prompts.insert(0, self.negative)
        copies, n = len(prompts), x.shape[0]
        dtype = next((p.dtype for p in self.unet.parameters()), x.dtype)
        latent = torch.cat([x] * copies).to(dtype)
        tokens = math.lcm(*(p.context.shape[1] for p in prompts))
        # A prompt of several times 77 tokens meets a shorter one: attention over a repeated prompt is the same.
        context = torch.cat([p.context.repeat(n, tokens // p.context.shape[1], 1) for p in prompts])
        pooled = torch.cat([p.pooled.expand(n, -1) for p in prompts])
        # Sizes stay in float32: bfloat16 knows no odd numbers above 256.
        ids = torch.tensor([p.time_ids for p in prompts], device=x.device, dtype=torch.float32)
        with self._guided(float(t[0])):
            out: torch.Tensor = self.unet(
                latent,
                torch.cat([t] * copies),
                encoder_hidden_states=context.to(latent),
                added_cond_kwargs={"text_embeds": pooled.to(latent), "time_ids": ids.repeat_interleave(n, 0)},
                return_dict=False,
            )[0].to(x.dtype)
        if copies == 1:
            return out
        uncond, cond = out.chunk(2)
        return uncond + self.options.cfg * (cond - uncond)

    def _guided(self, timestep: float) -> AbstractContextManager[Any]:
        if self.guidance is None:
            return nullcontext()
        low, high = self.active_range()
        strength = self.options.strength if low <= timestep <= high else 0.0
        return guided(self.unet, self.guidance, self.features, strength, self.exchange)

    def active_range(self) -> tuple[float, float]:
        """Timesteps between which the guidance works, open at the ends of the sampling."""
        last = schedule.TRAIN_STEPS - 1
        o = self.options
        high = float("inf") if o.start_percent <= 0 else (1 - o.start_percent) * last
        low = float("-inf") if o.end_percent >= 1 else (1 - o.end_percent) * last
        return low, high


def euler(
    denoiser: Denoiser,
    lq_latent: torch.Tensor,
    prediction: str,
    options: SampleOptions,
    progress: Progress | None = None,
    latent_std: float = 0.0,
    zero_snr: bool = False,
) -> torch.Tensor:
    """Sample a latent with diffusers' Euler scheduler and FaithDiff's schedule.

    Timesteps are "leading" with offset 1 (951, 901, ..., 1 for 20 steps), ComfyUI's ``ddim_uniform``.

    A start of ``"lr"`` is FaithDiff's own: the noise, as large as a start from noise alone has it, is taken for
    the noise of timestep 999, and the LQ latent added with the weight that a picture has there (0.068 of one; a
    start at that timestep in earnest would have eleven times as much).

    Args:
        lq_latent: ``(B, C, h, w)``, scaled as the model wants it; its shape and device are the result's.
            A ``"noise"`` start uses nothing else of it.
        prediction: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``.
        progress: called after each step.
        latent_std: see :func:`pgp_core.schedule.start_gain`.
        zero_snr: the model's noise schedule ends in pure noise.

    Raises:
        Cancelled: when ``progress`` returned False.
    """
    from diffusers import EulerDiscreteScheduler

    scheduler: Any = EulerDiscreteScheduler(
        beta_start=schedule.BETA_START,
        beta_end=schedule.BETA_END,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        timestep_spacing="leading",
        steps_offset=1,
        rescale_betas_zero_snr=zero_snr,
    )
    whole = options.start != "lq" or options.denoise >= 1
    total = options.steps if whole else min(int(options.steps / options.denoise), schedule.TRAIN_STEPS)
    scheduler.set_timesteps(total, device=lq_latent.device)
    timesteps = scheduler.timesteps[-options.steps :]
    scheduler.set_begin_index(total - options.steps)
    sigma = scheduler.sigmas[total - options.steps].to(lq_latent)
    noise = draw_noise(lq_latent.shape, options.seed).to(lq_latent)
    if options.start == "lr":
        a = scheduler.alphas_cumprod[-1].to(lq_latent)
        x = a.sqrt() * lq_latent + (1 - a).sqrt() * (sigma**2 + 1).sqrt() * noise
    else:
        x = noise * sigma * schedule.start_gain(float(sigma), latent_std) + (lq_latent if options.start == "lq" else 0)
    for i, t in enumerate(timesteps):
        out = denoiser(scheduler.scale_model_input(x, t), t.expand(x.shape[0]))
        x = scheduler.step(out, t, x, return_dict=False)[0]
        report(progress, i + 1, len(timesteps))
    return x


def restore_once(
    predict: Predict, lq_latent: torch.Tensor, timestep: int, progress: Progress | None = None
) -> torch.Tensor:
    """:func:`pgp_core.one_step.one_step` with progress; ``predict`` is a :class:`Denoiser`, or made of some."""
    z_h = one_step(predict, lq_latent, timestep)
    report(progress, 1, 1)
    return z_h


def draw_noise(shape: Any, seed: int) -> torch.Tensor:
    """Start noise, float32 on the CPU, from a generator of its own."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


def report(progress: Progress | None, done: int, total: int) -> None:
    """Tell the caller, and stop if the answer is False."""
    if progress is not None and progress(done, total) is False:
        raise Cancelled
