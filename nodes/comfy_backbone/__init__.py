"""ComfyUI as our backbone. The only package that knows ComfyUI's internals.

Tested with ComfyUI 0.33. Everything touched: ``comfy.supported_models.SDXL`` and ``comfy.model_base`` (building a
MODEL: ``model``), ``comfy.model_patcher`` and ``comfy.model_management`` (who owns weights), the UNet's
``input_block_patch`` (where guidance acts: ``guidance``), ``comfy.sd.VAE`` (nano's codec: ``nano``),
``comfy.samplers.KSAMPLER`` (``one_step``) and ``folder_paths`` (``folders``, ``conditioning``).
"""

from __future__ import annotations

from .conditioning import (
    conditioning_fingerprint,
    conditioning_names,
    is_listed,
    load_conditioning,
    save_conditioning,
)
from .folders import register_folders
from .guidance import GuidancePatch, apply_guidance, load_guidance
from .model import load_unet
from .nano import load_nano, pixel_vae
from .one_step import one_step_sampler

__all__ = [
    "GuidancePatch",
    "apply_guidance",
    "conditioning_fingerprint",
    "conditioning_names",
    "is_listed",
    "load_conditioning",
    "load_guidance",
    "load_nano",
    "load_unet",
    "one_step_sampler",
    "pixel_vae",
    "register_folders",
    "save_conditioning",
]
