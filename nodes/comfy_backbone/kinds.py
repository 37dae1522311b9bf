"""What a MODEL is, as far as a node must know it before it acts."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from .guidance import GuidancePatch
from .nano_latent import NanoLatent


def is_nano(model: ModelPatcher) -> bool:
    """Whether a MODEL is nano, which works on the residual latent."""
    return isinstance(model.get_model_object("latent_format"), NanoLatent)


def is_guided(model: ModelPatcher) -> bool:
    """Whether Apply PGP-DiffSR has been at a MODEL."""
    patches = model.model_options.get("transformer_options", {}).get("patches", {}).get("input_block_patch", [])
    return any(isinstance(p, GuidancePatch) for p in patches)
