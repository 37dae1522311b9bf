"""MODEL_PATCH: guidance files."""

from __future__ import annotations

import os
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from comfy.ldm.modules.diffusionmodules.model import normal_attention, vae_attention

from ....pgp_core.guidance.file import read_guidance
from ....pgp_core.guidance.lq_encoder import Attention, sliced_attention
from ....pgp_core.guidance.module import Guidance, GuidanceSpec
from ..files import opened


def load_guidance(path: str) -> Any:
    """A MODEL_PATCH (ModelPatcher over :class:`Guidance`) from a guidance file, or from FaithDiff's own file.

    Raises:
        GuidanceError, CheckpointError: if the file does not fit.
    """
    source = os.path.basename(path)
    with opened(path) as file:
        spec, sd = read_guidance(file)
    guidance = Guidance(spec, operations=comfy.ops.manual_cast, device=torch.device("meta"), attention=attention())
    # The dtype of the file: manual_cast gives every layer the dtype of what comes in.
    guidance.load(sd, source)
    guidance.eval().requires_grad_(False)
    return comfy.model_patcher.CoreModelPatcher(
        guidance, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
    )


def attention() -> Attention:
    """Core's attention for VAEs, or what does the same where core's takes no fewer queries than keys."""
    found: Attention = vae_attention()
    return sliced_attention if found is normal_attention else found


def describe_guidance(model_patch: Any) -> str:
    """What a guidance holds, in one line for its node."""
    spec: GuidanceSpec = model_patch.model.spec
    names = {
        "peam": "PEAM",
        "phase": "phase exchange alone",
        "convs": "PEAM without the phase",
        "add": "additive LQ adapter",
        "alignment": "FaithDiff's alignment",
    }
    parts = ", ".join(f"{names[s.fusion]} after {s.module}" for s in spec.sites)
    size = sum(p.numel() for p in model_patch.model.parameters()) / 1e6
    untrained = "" if spec.trained else ". UNTRAINED: its fresh parts change nothing until they are trained"
    return f"for {spec.base}: {parts}; {size:.1f} M parameters{untrained}"
