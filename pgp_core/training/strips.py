"""Pictures to look at while a run goes on: LQ, restored, HQ side by side, one row a crop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from ..restorers.recipe import Recipe, decide
from ..sampling.euler import euler
from ..sampling.one_step import one_step
from .config import RunConfig
from .subject import Batch, Subject


def sample_recipe(config: RunConfig) -> Recipe:
    """How sample pictures are made: as the family is meant to be used, but without CFG, which takes twice the calls."""
    return decide(config.model.of.family.recipe(config.s1 is not None), {"cfg": 1.0})


def strip(batch: Batch, recipe: Recipe, latent_std: float = 0.0) -> Callable[[Subject], Image.Image]:
    """``picture(subject)`` of fixed crops, sampled from the same noise every time.

    Args:
        latent_std: see :func:`pgp_core.schedule.start_gain`.
    """
    return lambda subject: _rows(batch.lq, restore(subject, batch, recipe, latent_std), batch.hq)


@torch.no_grad()
def restore(subject: Subject, batch: Batch, recipe: Recipe, latent_std: float = 0.0) -> torch.Tensor:
    """Restored crops, ``(B, 3, H, W)`` float32 on the CPU, in [0, 1]."""
    batch = batch.to(subject.device)
    z_lq = subject.encode(batch.lq)
    conditioning = subject.conditioning(batch, torch.ones(len(batch), dtype=torch.bool, device=z_lq.device))
    # What the LQ itself is in the space where noise is added: its latent, or, for a residual, nothing.
    own = subject.denoised(z_lq, z_lq)

    def denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return subject(x, t, batch.lq, conditioning)

    if recipe.one_step:
        return _clean(subject.decode(one_step(denoiser, z_lq, subject.s1_timestep, recipe.rule)))
    made = euler(denoiser, own, subject.prediction, recipe.options(), None, latent_std)
    return _clean(subject.decode(made + (z_lq - own)))


def _clean(pictures: torch.Tensor) -> torch.Tensor:
    return pictures.float().clamp(0, 1).nan_to_num().cpu()


def _rows(*columns: torch.Tensor) -> Image.Image:
    """Batches of the same shape as columns of one picture."""
    rows = torch.cat([torch.cat(list(column.cpu()), 1) for column in columns], 2)
    return Image.fromarray(np.rint(rows.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
