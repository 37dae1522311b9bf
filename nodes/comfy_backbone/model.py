"""Building a MODEL from a file."""

from __future__ import annotations

import json
import os
from typing import Any

import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.model_sampling
import comfy.supported_models
import comfy.utils
import torch

from ...pgp_core.checkpoints import check_same
from ...pgp_core.errors import CheckpointError
from ...pgp_core.plan import PrunePlan
from ...pgp_core.schedule import PREDICTIONS, start_gain
from ...pgp_core.topology import KeyMap
from ...pgp_core.unet_shape import NANO_SHAPE, UNetShape
from .files import read
from .nano_latent import NanoLatent


def _sampling(config: Any, prediction: str, latent_std: float) -> Any:
    """Core's discrete noise schedule for a prediction, with :func:`pgp_core.schedule.start_gain`."""
    # Core has X0 (see its ModelSamplingDiscrete node), but no model type for it.
    kind: Any = {
        "epsilon": comfy.model_sampling.EPS,
        "v_prediction": comfy.model_sampling.V_PREDICTION,
        "sample": comfy.model_sampling.X0,
    }[prediction]

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, kind):
        def noise_scaling(self, sigma: Any, noise: Any, latent_image: Any, max_denoise: bool = False) -> Any:
            gain = start_gain(float(sigma.flatten()[0]), latent_std)
            # Core's max_denoise adds a variance of 1 in the same way.
            return super().noise_scaling(sigma, noise * gain, latent_image, max_denoise and gain == 1)

    return Sampling(config)


class _PrunedSDXL(comfy.supported_models.SDXL):
    """SDXL's configuration for another shape, prediction and latent."""

    def __init__(self, shape: UNetShape, prediction: str, latent_format: Any, latent_std: float = 0.0):
        # Set on the instance: core's __init__ writes these over unet_config.
        self.unet_extra_config = {"num_heads": -1, "num_head_channels": shape.head_dim}
        super().__init__(_unet_config(shape))
        if latent_format is not None:
            self.latent_format = latent_format
        self.prediction = prediction
        self.latent_std = latent_std

    def model_type(self, state_dict: Any, prefix: str = "") -> Any:
        types = comfy.model_base.ModelType
        return types.V_PREDICTION if self.prediction == "v_prediction" else types.EPS

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> Any:
        model = super().get_model(state_dict, prefix, device=device)
        model.model_sampling = _sampling(self, self.prediction, self.latent_std)
        return model

    def inpaint_model(self) -> bool:
        # Core takes every UNet with more than four input channels for an inpainting one.
        return False


def _unet_config(shape: UNetShape) -> dict[str, Any]:
    """Core's ``unet_config`` of the unpruned UNet: LoRA key maps are made from it, so depths stay whole."""
    depth = shape.topology.depths
    one, two = depth["down_blocks.1.attentions.0"], depth["down_blocks.2.attentions.0"]
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
        "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, one, one, two, two],
        "transformer_depth_output": [0, 0, 0, one, one, one, two, two, two],
        "channel_mult": [c // shape.channels[0] for c in shape.channels],
        "transformer_depth_middle": two,
        "use_linear_in_transformer": True,
        "context_dim": shape.context_dim,
        "use_temporal_attention": False,
        "use_temporal_resblock": False,
    }


def load_unet(path: str, options: dict[str, Any] | None = None, disable_dynamic: bool = False) -> Any:
    """A MODEL from a pruned UNet file of ours; blocks keep their original numbers.

    Args:
        path: safetensors in LDM keys with ``pgp.plan`` and ``pgp.model`` metadata.
        options: ``dtype``, as core's loader takes it.
        disable_dynamic: core passes it when it clones a MODEL for hooks.

    Raises:
        CheckpointError: if keys are missing, foreign or misshapen.
        PlanError: if the plan does not fit.
    """
    options = dict(options or {})
    source = os.path.basename(path)
    sd, metadata = read(path)
    try:
        plan = PrunePlan.from_json(json.loads(metadata["pgp.plan"]), source)
        about = json.loads(metadata["pgp.model"])
        prediction, latent_std = str(about["prediction"]), float(about.get("latent_std", 0))
        if prediction not in PREDICTIONS:
            raise CheckpointError(f"{source} predicts {prediction!r}, which this release does not know: update")
    except (KeyError, TypeError, ValueError) as e:
        raise CheckpointError(f"{source} is no pruned UNet of this pack: its metadata lacks {e}") from None
    if plan.topology != NANO_SHAPE.topology.name:
        raise CheckpointError(f"{source} is pruned from {plan.topology}, which this release cannot load yet")

    config = _PrunedSDXL(NANO_SHAPE, prediction, NanoLatent(), latent_std)
    load_device, offload = mm.get_torch_device(), mm.unet_offload_device()
    dtype = options.get("dtype") or mm.unet_dtype(
        model_params=comfy.utils.calculate_parameters(sd),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(sd),
    )
    manual_cast = mm.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, manual_cast, device=load_device)
    # On the meta device the blocks that the plan removes cost nothing.
    model = config.get_model(sd, "", device=torch.device("meta"))
    _drop_blocks(model.diffusion_model, plan)
    check_same(_shapes(model.diffusion_model), sd, source)

    cls = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = cls(model, load_device=load_device, offload_device=offload)
    if not patcher.is_dynamic():
        sd = {k: v.to(dtype=dtype, device=offload, copy=True) for k, v in sd.items()}
    model.load_model_weights(sd, "", assign=True)
    patcher.cached_patcher_init = (load_unet, (path, options))
    return patcher


def _drop_blocks(unet: torch.nn.Module, plan: PrunePlan) -> None:
    """Delete removed blocks; the ModuleList keeps the others' numbers as keys, with gaps."""
    names = KeyMap()
    for stack, entry in plan.stacks.items():
        blocks = unet.get_submodule(names.to_ldm(stack) + ".transformer_blocks")
        for number in [n for n in blocks._modules if int(n) not in entry.keep]:
            del blocks._modules[number]


def _shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that a module expects.

    Under dynamic VRAM core's linear layers have none until they are loaded, so their sizes are read.
    """
    shapes = {k: tuple(v.shape) for k, v in module.state_dict().items()}
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear) and layer.weight is None:
            shapes[f"{name}.weight"] = (layer.out_features, layer.in_features)
            if getattr(layer, "comfy_need_lazy_init_bias", False):
                shapes[f"{name}.bias"] = (layer.out_features,)
    return shapes
