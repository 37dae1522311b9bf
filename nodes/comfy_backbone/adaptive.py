"""Groups of tiles by difficulty on a tiled MODEL."""

from __future__ import annotations

import logging
from typing import Any

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...pgp_core.errors import PGPError
from ...pgp_core.number import number
from ...pgp_core.tiling import Groups, Split
from .parts import current_part

log = logging.getLogger(__name__)

KEY = "pgp_diffsr_groups"
#: Where a tiled MODEL looks for :class:`Groups`.
OPTION = "pgp_groups"
NAME = "PGP-DiffSR Adaptive"


def adaptive_model(
    model: ModelPatcher,
    difficulty: torch.Tensor,
    samples: dict[str, Any],
    split: Split,
    starts: tuple[float, float],
    common: int = 2,
) -> ModelPatcher:
    """A copy of a tiled MODEL that is called for easy tiles later than for hard ones.

    Args:
        difficulty: ``(1 or B, h, w)`` in [0, 1].
        samples: LATENT, the encoded canvas. Of a MODEL whose latent is the residual only the size counts.
        starts: shares of the timesteps that are left where easy and medium tiles begin, 0 to 1.
        common: last steps that all tiles share.

    Raises:
        PGPError: if the MODEL is not tiled, has groups already, or the mask or the latent does not fit.
    """
    wrapper = model.model_options.get("model_function_wrapper")
    if not getattr(wrapper, "takes_groups", False):
        raise PGPError(f"{NAME}: this MODEL is not sampled in tiles; put PGP-DiffSR Tiling right before this node")
    if OPTION in model.model_options.get("transformer_options", {}):
        raise PGPError(f"{NAME}: this MODEL has groups already; connect the MODEL before")
    if difficulty.ndim != 3:
        raise PGPError(f"{NAME}: difficulty must be a mask, got a tensor of shape {tuple(difficulty.shape)}")
    for name, value in zip(("easy_start", "medium_start"), starts, strict=True):
        number(value, f"{NAME}: {name} must be", 0, 1)
    overlap = getattr(wrapper, "overlap", None)
    groups = Groups(difficulty[:, None], _coarse(model, samples), split, _levels(model, starts), common, overlap)
    adaptive = model.clone()
    adaptive.model_options.setdefault("transformer_options", {})[OPTION] = groups
    adaptive.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _Runs(groups, starts))
    return adaptive


def _coarse(model: ModelPatcher, samples: dict[str, Any]) -> torch.Tensor:
    """What stands for the picture until the model is called, in the model's own scale."""
    latent, latents = samples["samples"], model.get_model_object("latent_format")
    latent = comfy.sample.fix_empty_latent_channels(model, latent, samples.get("downscale_ratio_spacial"))
    if getattr(latents, "is_residual", False):
        # A latent of zeros that takes no memory.
        size = (latent.shape[0], latents.latent_channels, *latent.shape[2:])
        return torch.zeros(()).expand(size)
    if latent.ndim == 4 and latent.shape[1] != latents.latent_channels:
        raise PGPError(
            f"{NAME}: the latent has {latent.shape[1]} channels, the MODEL {latents.latent_channels}; encode the "
            "canvas with the MODEL's own VAE"
        )
    if not latent.any():
        raise PGPError(f"{NAME}: the latent is empty; connect the canvas, encoded with the MODEL's VAE")
    return model.model.process_latent_in(latent.float())


def _levels(model: ModelPatcher, starts: tuple[float, float]) -> tuple[float, float]:
    """Noise levels at which shares of a MODEL's timesteps are left."""
    sampling = model.get_model_object("model_sampling")
    easy, medium = (float(sampling.percent_to_sigma(1 - s)) for s in starts)
    return easy, medium


class _Runs:
    """Core's OUTER_SAMPLE wrapper: tells the groups the ladder, and the log what was spared."""

    def __init__(self, groups: Groups, starts: tuple[float, float]):
        self.groups, self.starts = groups, starts

    def __call__(
        self, executor: WrapperExecutor, noise: Any, latent: Any, sampler: Any, sigmas: Any, *args: Any, **kw: Any
    ) -> Any:
        groups = self.groups
        part = current_part(noise.shape[0])
        if groups.pictures not in (1, part.total):
            raise PGPError(
                f"{NAME}: tiles were grouped for {groups.pictures} latents, and {part.total} are sampled; connect the "
                "latent that is sampled to samples, with as many masks"
            )
        # Of the MODEL that is sampled, whatever was done to its schedule since.
        groups.starts = _levels(executor.class_obj.model_patcher, self.starts)
        groups.begin(sigmas.tolist(), None if groups.pictures == 1 else (part.first, part.end))
        result = executor(noise, latent, sampler, sigmas, *args, **kw)
        if groups.skipped:
            total = groups.called + groups.skipped
            log.info("%s: the model was called for %d of %d tiles", NAME, groups.called, total)
        else:
            log.info("%s: nothing was spared; the picture is one tile, or every tile is hard", NAME)
        return result
