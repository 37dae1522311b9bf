"""Guidance put on a MODEL."""

from __future__ import annotations

import logging
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, WrappersMP

from ....pgp_core.errors import GuidanceError
from ....pgp_core.guidance.module import Guidance
from ....pgp_core.images.checked import checked_pictures
from ....pgp_core.number import number
from .. import places, records
from ..blocks import blocks_of
from ..topology import names_of, topology_of
from .patch import GuidancePatch, guidance_in

log = logging.getLogger(__name__)

KEY = "pgp_diffsr"


def apply_guidance(
    model: ModelPatcher,
    model_patch: Any,
    image: torch.Tensor,
    strength: float,
    start_percent: float,
    end_percent: float,
) -> ModelPatcher:
    """A copy of a MODEL with guidance; the MODEL itself is not touched.

    Args:
        image: ``(B, H, W, C)`` in [0, 1], the LQ canvas.

    Raises:
        GuidanceError: if the patch is not ours, is there already, or it is not for this MODEL.
    """
    guidance = getattr(model_patch, "model", None)
    if not isinstance(guidance, Guidance):
        raise GuidanceError(
            "Apply PGP-DiffSR: this MODEL_PATCH is not PGP-DiffSR guidance; connect one of this pack's loaders"
        )
    for name, value in (("strength", strength), ("start_percent", start_percent), ("end_percent", end_percent)):
        number(value, f"Apply PGP-DiffSR: {name} must be", 0, 1, error=GuidanceError)
    if start_percent > end_percent:
        raise GuidanceError(
            f"Apply PGP-DiffSR: the guidance would end ({end_percent}) before it starts ({start_percent})"
        )
    if is_guided(model):
        raise GuidanceError("Apply PGP-DiffSR: this MODEL is guided already; guide it once, from the unguided MODEL")
    names = names_of(model)
    for site in guidance.spec.sites:
        have = _channels_after(model, names.block_of_site(site.module)[1])
        if have != site.channels:
            raise GuidanceError(
                f"Apply PGP-DiffSR: this guidance is for {guidance.spec.base} ({site.channels} channels at "
                f"{site.module}), the MODEL has {have} there; load guidance that was made for it"
            )
    topology = topology_of(model, blocks_of(model))
    if topology is not None and topology.name != guidance.spec.base:
        raise GuidanceError(
            f"Apply PGP-DiffSR: this guidance is for {guidance.spec.base}, the MODEL is {topology.name}; load guidance "
            "that was made for it"
        )
    image = checked_pictures(image, "Apply PGP-DiffSR", log.warning, (3, 4), GuidanceError)
    if not guidance.spec.trained:
        log.warning("Apply PGP-DiffSR: this guidance is untrained; its fresh parts change nothing")
    guided = model.clone()
    lq = image[..., :3].movedim(-1, 1).contiguous().float()
    patch = GuidancePatch(model_patch, lq, strength, start_percent, end_percent, names)
    guided.set_model_input_block_patch(patch)
    guided.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, patch.prepare)
    guided.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, patch.entered)
    guided.add_callback_with_key(CallbacksMP.ON_PRE_RUN, KEY, patch.started)
    places.watch(guided)
    records.mark(guided, records.record_of(model, guidance))
    return guided


def is_guided(model: ModelPatcher) -> bool:
    """Whether Apply PGP-DiffSR has been at a MODEL."""
    return guidance_in(model.model_options.get("transformer_options", {})) is not None


def _channels_after(model: ModelPatcher, block: int) -> int | None:
    """Channels that leave an encoder block of a MODEL's UNet, or None where there is no such UNet."""
    blocks = getattr(model.model.diffusion_model, "input_blocks", None)
    if blocks is None or block >= len(blocks):
        return None
    layers = [m for m in blocks[block].modules() if getattr(m, "out_channels", None)]
    return layers[-1].out_channels if layers else None
