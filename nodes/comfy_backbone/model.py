"""Building a MODEL from a file: full or pruned, SDXL, what was distilled from it, or nano."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.model_management as mm
import comfy.model_sampling
import comfy.supported_models
import comfy.utils
import torch
from comfy.model_base import BaseModel, ModelType
from comfy.model_patcher import CoreModelPatcher, ModelPatcher

from ...pgp_core.errors import CheckpointError
from ...pgp_core.files.checkpoints import check_finite, check_same
from ...pgp_core.files.finite import is_finite, not_finite
from ...pgp_core.restorers.finding import family_of_unet
from ...pgp_core.schedule import start_gain
from ...pgp_core.unet.blocks import numbers_in, stacks_in
from ...pgp_core.unet.inspect import UNetInfo, inspect_unet
from ...pgp_core.unet.known import SDXL_SHAPE
from ...pgp_core.unet.plan import PrunePlan
from ...pgp_core.unet.prune import prune_module
from ...pgp_core.unet.shape import UNetShape
from .files import opened
from .missing_blocks import reporting
from .records import Record, latent_format, mark
from .removed import watch

log = logging.getLogger(__name__)

#: Names on the loader's widget, core's own first, to options of :func:`load_unet`.
WEIGHT_DTYPES: dict[str, dict[str, Any]] = {
    "default": {},
    "fp8_e4m3fn": {"dtype": torch.float8_e4m3fn},
    "fp8_e4m3fn_fast": {"dtype": torch.float8_e4m3fn, "fp8_optimizations": True},
    "fp8_e5m2": {"dtype": torch.float8_e5m2},
    "fp16": {"dtype": torch.float16},
    "bf16": {"dtype": torch.bfloat16},
}


def _sampling(config: Any, prediction: str, latent_std: float) -> comfy.model_sampling.ModelSamplingDiscrete:
    """Core's discrete noise schedule for a prediction, with :func:`pgp_core.schedule.start_gain`."""
    # Core has X0 (see its ModelSamplingDiscrete node), but no model type for it.
    kind: Any = {
        "epsilon": comfy.model_sampling.EPS,
        "v_prediction": comfy.model_sampling.V_PREDICTION,
        "sample": comfy.model_sampling.X0,
    }[prediction]

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, kind):
        def noise_scaling(
            self, sigma: torch.Tensor, noise: torch.Tensor, latent_image: torch.Tensor, max_denoise: bool = False
        ) -> torch.Tensor:
            gain = start_gain(float(sigma.flatten()[0]), latent_std)
            # Core's max_denoise adds a variance of 1 in the same way.
            return super().noise_scaling(sigma, noise * gain, latent_image, max_denoise and gain == 1)

    return Sampling(config)


class _SDXLShaped(comfy.supported_models.SDXL):
    """SDXL's configuration for what a file holds."""

    def __init__(self, info: UNetInfo):
        # Set on the instance: core's __init__ writes these over unet_config.
        self.unet_extra_config = {"num_heads": -1, "num_head_channels": info.shape.head_dim}
        super().__init__(_unet_config(info.shape))
        # Core's is SDXL's; what a call takes for each position goes with the width.
        self.memory_usage_factor *= info.shape.channels[0] / SDXL_SHAPE.channels[0]
        family = family_of_unet(info.shape.topology.name)
        self.latent_format = latent_format(family) or self.latent_format
        if info.zero_snr:
            self.sampling_settings["zsnr"] = True
        self.info = info

    def model_type(self, state_dict: dict[str, Any], prefix: str = "") -> ModelType:
        return ModelType.V_PREDICTION if self.info.prediction == "v_prediction" else ModelType.EPS

    def get_model(self, state_dict: dict[str, Any], prefix: str = "", device: torch.device | None = None) -> BaseModel:
        model = super().get_model(state_dict, prefix, device=device)
        if self.info.prediction == "sample" or self.info.latent_std:
            model.model_sampling = _sampling(self, self.info.prediction, self.info.latent_std)
        return model

    def inpaint_model(self) -> bool:
        # Core takes every UNet with more than four input channels for an inpainting one.
        return False


def _unet_config(shape: UNetShape) -> dict[str, Any]:
    """Core's ``unet_config`` of the unpruned UNet: LoRA key maps are made from it, so depths stay whole."""
    topology = shape.topology
    resnets, levels = topology.resnets, range(len(shape.channels))
    down = [topology.in_level("down", i) or (0,) * resnets for i in levels]
    # Core takes them from the end.
    up = [topology.in_level("up", i) or (0,) * (resnets + 1) for i in levels][::-1]
    return {
        "use_checkpoint": False,
        "image_size": 32,
        "use_spatial_transformer": True,
        "legacy": False,
        "num_classes": "sequential",
        "adm_in_channels": shape.adm_dim,
        "in_channels": shape.latent_channels,
        "out_channels": shape.latent_channels,
        "model_channels": shape.channels[0],
        "num_res_blocks": [resnets for _ in levels],
        "transformer_depth": [d for level in down for d in level],
        "transformer_depth_output": [d for level in up for d in level[::-1]],
        "channel_mult": [c // shape.channels[0] for c in shape.channels],
        # Core's words for a middle without a stack, and for none.
        "transformer_depth_middle": topology.depths.get("mid_block.attentions.0", topology.middle - 2),
        "use_linear_in_transformer": True,
        "context_dim": shape.context_dim,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }


def load_unet(path: str, options: dict[str, Any] | None = None, disable_dynamic: bool = False) -> ModelPatcher:
    """A MODEL from a UNet file or a whole checkpoint; blocks keep their original numbers.

    What a plan removes is neither read nor built.

    Args:
        options: ``dtype`` and ``fp8_optimizations``, as core's loader takes them, and ``plan``.
        disable_dynamic: core passes it when it clones a MODEL for hooks.

    Raises:
        CheckpointError: if there is no SDXL-shaped UNet in it, or keys are missing, foreign or misshapen.
        PlanError: if the plan does not fit.
    """
    options = dict(options or {})
    with opened(path) as file:
        info = inspect_unet(file, options.get("plan"))
        sd = {info.ldm(k): file.read(k) for k in info.keys}
    config = _SDXLShaped(info)
    load_device, offload = mm.get_torch_device(), mm.unet_offload_device()
    dtype = options.get("dtype") or mm.unet_dtype(
        model_params=comfy.utils.calculate_parameters(sd),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(sd),
    )
    manual_cast = mm.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, manual_cast, device=load_device)
    if options.get("fp8_optimizations"):
        config.optimizations["fp8"] = True
    # On the meta device the blocks that the plan removes cost nothing.
    model = config.get_model(sd, "", device=torch.device("meta"))
    prune(model.diffusion_model, info.plan)
    check_same(shapes_of(model.diffusion_model), sd, info.name)

    cls = ModelPatcher if disable_dynamic else CoreModelPatcher
    patcher = cls(model, load_device=load_device, offload_device=offload)
    if info.plan.removed:
        patcher = reporting(patcher)
        watch(patcher)
    if not patcher.is_dynamic():
        # One by one, so that only one tensor is there twice; those of the right dtype stay pages of the file.
        for key, before in sd.items():
            sd[key] = before.to(dtype=dtype, device=offload)
            if not is_finite(sd[key]):
                raise CheckpointError(not_finite(info.name, key, before, dtype))
    else:
        # The others stay on the disk until they are used.
        check_finite({k: v for k, v in sd.items() if v.ndim == 1}, info.name)
    model.load_model_weights(sd, "", assign=True)
    patcher.cached_patcher_init = (load_unet, (path, options))
    mark(patcher, Record(family_of_unet(info.shape.topology.name), info.said))
    _tell(info)
    return patcher


def _tell(info: UNetInfo) -> None:
    kept = sum(len(s.keep) for s in info.plan.stacks.values())
    log.info("%s: %d of %d transformer blocks", info.name, kept, kept + info.plan.removed)
    for note in info.notes:
        log.warning("%s: %s", info.name, note)
    if info.prediction == "v_prediction" and not family_of_unet(info.shape.topology.name).bundled:
        log.warning(
            "%s predicts v, not noise: it samples rightly, but guidance that was trained on a noise-predicting model "
            "does not suit it",
            info.name,
        )


def prune(unet: torch.nn.Module, plan: PrunePlan) -> None:
    """Delete removed blocks. Core numbers those of a stack by counting; attention patches go by their own numbers."""
    prune_module(unet, plan)
    for blocks in stacks_in(unet).values():
        for position, (number, block) in enumerate(zip(numbers_in(blocks), blocks, strict=True)):
            if position != number:
                block.register_forward_pre_hook(_numbered(number), with_kwargs=True)


def _numbered(number: int) -> Callable[..., None]:
    def hook(_block: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        kwargs["transformer_options"]["block_index"] = number

    return hook


def _is_estimate(key: str, value: Any, shapes: dict[str, Any]) -> bool:
    """Whether an entry of a layer's state is no weight of it, but memory that it will take."""
    return value.is_meta and key.endswith(".temp.weight") and key.removesuffix("temp.weight") + "weight" in shapes


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that a module expects.

    Under dynamic VRAM core's linear layers have none until they are loaded, so their sizes are read.
    """
    state = module.state_dict()
    # Of packed weights (GGUF's) only the parameter says what it stands for; its layer's state is an estimate of memory.
    shapes = {k: tuple(p.shape) for k, p in module.named_parameters()}
    shapes |= {k: tuple(v.shape) for k, v in state.items() if k not in shapes and not _is_estimate(k, v, shapes)}
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer.weight is None:
            shapes[f"{name}.weight"] = (layer.out_features, layer.in_features)
            if getattr(layer, "comfy_need_lazy_init_bias", False):
                shapes[f"{name}.bias"] = (layer.out_features,)
    return shapes
