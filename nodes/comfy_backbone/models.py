"""Model files by the names that nodes list."""

from __future__ import annotations

from typing import Any

import folder_paths
from comfy.model_patcher import ModelPatcher

from .guidance import load_guidance
from .model import WEIGHT_DTYPES, load_unet
from .plans import plan_named

UNETS, PATCHES = "diffusion_models", "model_patches"


def unet_names() -> list[str]:
    """Files that may hold a UNet."""
    return folder_paths.get_filename_list(UNETS)


def guidance_names() -> list[str]:
    """Files that may hold guidance; FaithDiff's own file holds a UNet too, and may lie with those."""
    patches = folder_paths.get_filename_list(PATCHES)
    unets = [n for n in folder_paths.get_filename_list(UNETS) if "faithdiff" in n.lower() and n not in patches]
    return [*patches, *unets]


def load_unet_named(name: str, plan: str, weight_dtype: str) -> ModelPatcher:
    """A MODEL from ComfyUI's folder; see :func:`load_unet`."""
    options = dict(WEIGHT_DTYPES[weight_dtype])
    chosen = plan_named(plan)
    if chosen is not None:
        options["plan"] = chosen
    return load_unet(folder_paths.get_full_path_or_raise(UNETS, name), options)


def load_guidance_named(name: str) -> Any:
    """A MODEL_PATCH from ComfyUI's folders; see :func:`load_guidance`."""
    kind = PATCHES if name in folder_paths.get_filename_list(PATCHES) else UNETS
    return load_guidance(folder_paths.get_full_path_or_raise(kind, name))
