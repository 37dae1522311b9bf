"""ComfyUI as our backbone. The only package that knows ComfyUI's internals.

Tested with ComfyUI 0.33. Everything touched: ``comfy.supported_models.SDXL`` and ``comfy.model_base`` (building a
MODEL: ``model``), ``comfy.model_patcher`` and ``comfy.model_management`` (who owns weights), the UNet's
``input_block_patch``, the ``OUTER_SAMPLE`` and ``APPLY_MODEL`` wrappers and the ``ON_PRE_RUN`` callback (where guidance
acts: ``guidance``; ``adaptive``), the ``CALC_COND_BATCH`` wrapper, ``comfy.samplers.get_area_and_mult`` and the windows
of ``comfy.context_windows`` (``places``), the ``model_function_wrapper``, ``CFGGuider.conds`` and the switches of
``comfy.ops`` (``tiling``), object patches on transformer blocks (``blocks``), the ``DIFFUSION_MODEL`` wrapper
(``recording``), ``ModelPatcher.add_patches`` and ``comfy.lora`` (``missing_blocks``),
``ModelPatcher.model_state_dict_for_saving`` (``saving``), ``comfy.utils.load_torch_file`` (``files``), ``comfy.sd.VAE``
(nano's codec: ``nano``), ``comfy.samplers.KSAMPLER`` (``one_step``), ``folder_paths`` (``folders``, ``models``,
``plans``, ``conditioning``, ``recording``), and where core keeps other packs' functions on a MODEL (``left_behind``,
``removed``, ``tiling.patches``).
"""

from __future__ import annotations

from .adaptive import adaptive_model
from .conditioning import (
    conditioning_fingerprint,
    conditioning_names,
    is_listed,
    load_conditioning,
    save_conditioning,
)
from .folders import register_folders
from .guidance import GuidancePatch, apply_guidance, describe_guidance, is_guided, load_guidance
from .model import WEIGHT_DTYPES, load_unet
from .models import guidance_names, load_guidance_named, load_unet_named, unet_names
from .nano import load_nano, pixel_vae
from .one_step import one_step_sampler
from .one_step_checks import lacks_s1
from .other_plan import other_plan_note
from .plans import NO_PLAN, plan_choices, plan_files, plan_named, save_plan_named
from .pruning import apply_plan
from .recording import Recording, check_report, record, report_files, report_named
from .records import Record, bundled_record, record_of
from .saving import core_loading_of, relative_to_output, save_unet
from .tiling import tile_model

__all__ = [
    "NO_PLAN",
    "WEIGHT_DTYPES",
    "GuidancePatch",
    "Record",
    "Recording",
    "adaptive_model",
    "apply_guidance",
    "apply_plan",
    "bundled_record",
    "check_report",
    "conditioning_fingerprint",
    "conditioning_names",
    "core_loading_of",
    "describe_guidance",
    "guidance_names",
    "is_guided",
    "is_listed",
    "lacks_s1",
    "load_conditioning",
    "load_guidance",
    "load_guidance_named",
    "load_nano",
    "load_unet",
    "load_unet_named",
    "one_step_sampler",
    "other_plan_note",
    "pixel_vae",
    "plan_choices",
    "plan_files",
    "plan_named",
    "record",
    "record_of",
    "register_folders",
    "relative_to_output",
    "report_files",
    "report_named",
    "save_conditioning",
    "save_plan_named",
    "save_unet",
    "tile_model",
    "unet_names",
]
