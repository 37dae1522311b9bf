"""Pictures to look at while a run goes on: LQ, restored, HQ side by side, one row a crop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..sampling.euler import euler
from ..sampling.options import SampleOptions
from .subject import Batch, Subject

#: Euler steps of a sample picture.
STEPS = 20


def strip(batch: Batch, one_step: bool, latent_std: float = 0.0) -> Callable[[Subject], Image.Image]:
    """``picture(subject)`` of fixed crops, sampled from the same noise every time, without CFG.

    Args:
        one_step: restore with one UNet call.
        latent_std: see :func:`pgp_core.schedule.start_gain`.
    """
    return lambda subject: _rows(batch.lq, restore(subject, batch, one_step, latent_std), batch.hq)


@torch.no_grad()
def restore(subject: Subject, batch: Batch, one_step: bool, latent_std: float = 0.0) -> torch.Tensor:
    """Restored crops, ``(B, 3, H, W)`` float32 on the CPU, in [0, 1]."""
    batch = batch.to(subject.device)
    z_lq = subject.encode(batch.lq)
    conditioning = subject.conditioning(batch, torch.ones(len(batch), dtype=torch.bool, device=z_lq.device))
    if one_step:
        t = torch.full((len(batch),), subject.s1_timestep, device=z_lq.device)
        return _clean(subject.decode(z_lq - subject(z_lq, t, batch.lq, conditioning)))
    # What the LQ itself is in the space where noise is added: its latent, or, for a residual, nothing.
    own = subject.denoised(z_lq, z_lq)

    def denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return subject(x, t, batch.lq, conditioning)

    start = "lr" if bool(own.any()) else "noise"
    options = SampleOptions(steps=STEPS, cfg=1.0, start=start)
    guess: Any = denoiser
    return _clean(subject.decode(euler(guess, own, subject.prediction, options, None, latent_std) + (z_lq - own)))


def _clean(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.float().clamp(0, 1).nan_to_num().cpu()


def _rows(*columns: torch.Tensor) -> Image.Image:
    """Batches of the same shape as columns of one picture."""
    rows = torch.cat([torch.cat(list(column.cpu()), 1) for column in columns], 2)
    return Image.fromarray(np.rint(rows.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
