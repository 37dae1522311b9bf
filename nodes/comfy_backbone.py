"""ComfyUI's UNet as our backbone. The only module that knows ComfyUI's internals.

Tested with ComfyUI 0.33. Everything touched here: ``comfy.supported_models.SDXL`` and
``comfy.model_base`` (building a MODEL), ``comfy.model_patcher`` and ``comfy.model_management`` (who owns
weights), the UNet's ``input_block_patch`` (where guidance acts), ``comfy.sd.VAE`` (nano's codec) and
``comfy.samplers.KSAMPLER`` (one step).
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any, ClassVar

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.model_sampling
import comfy.ops
import comfy.samplers
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import torch

from ..pgp_core import nano, pixel_codec
from ..pgp_core.checkpoints import check_same
from ..pgp_core.errors import CheckpointError, GuidanceError, PGPError
from ..pgp_core.guidance import Guidance, GuidanceSpec
from ..pgp_core.one_step import one_step
from ..pgp_core.plan import PrunePlan
from ..pgp_core.schedule import PREDICTIONS, start_gain
from ..pgp_core.topology import KeyMap
from ..pgp_core.unet_shape import NANO_SHAPE, UNetShape

log = logging.getLogger(__name__)


def register_folders() -> None:
    """Let core's LoRA loader see the bundled S1 LoRA."""
    folder_paths.add_model_folder_path("loras", str((nano.FOLDER / nano.S1_FILE).parent))


# -- MODEL ---------------------------------------------------------------------------------------------------


class NanoLatent(comfy.latent_formats.LatentFormat):
    """Nano's residual latent; previews show the residual around grey."""

    latent_channels = pixel_codec.CHANNELS
    spacial_downscale_ratio = pixel_codec.FACTOR
    scale_factor = nano.SCALE
    # The previewer maps channels to RGB linearly; after unshuffling there are three left.
    latent_rgb_factors: ClassVar = [[0.3, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.3]]

    @staticmethod
    def latent_rgb_factors_reshape(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(x, pixel_codec.FACTOR)


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
    sd, metadata = _read(path)
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


def _read(path: str) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Core's reader, which keeps tensors on disk under dynamic VRAM; errors as ours."""
    if not os.path.isfile(path):
        raise CheckpointError(f"{path} is missing: install the pack again")
    try:
        sd, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    except Exception as e:
        raise CheckpointError(f"{os.path.basename(path)} is damaged or no model file ({e}): get it again") from None
    return sd, metadata or {}


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


# -- MODEL_PATCH ---------------------------------------------------------------------------------------------


def load_guidance(path: str) -> Any:
    """A MODEL_PATCH (ModelPatcher over :class:`Guidance`) from a guidance file.

    Raises:
        GuidanceError, CheckpointError: if the file does not fit.
    """
    source = os.path.basename(path)
    sd, metadata = _read(path)
    spec = GuidanceSpec.from_metadata(metadata, source)
    guidance = Guidance(spec, operations=comfy.ops.manual_cast, device=torch.device("meta"), dtype=torch.float32)
    # float32 on every device: a PEAM is small, and twelve convolutions in a row overflow half precision.
    guidance.load({k: v.to(torch.float32, copy=True) for k, v in sd.items()}, source)
    guidance.eval().requires_grad_(False)
    return comfy.model_patcher.CoreModelPatcher(
        guidance, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
    )


class GuidancePatch:
    """The callable that core runs after each encoder block of a guided MODEL.

    Core finds :meth:`models`, :meth:`to` and :meth:`cleanup` on it: it loads the guidance with the MODEL,
    tells of moves, and ends a run. LQ features are made once a run and kept until it ends.
    """

    def __init__(self, patcher: Any, lq: torch.Tensor, strength: float, sigma_start: float, sigma_end: float):
        self.patcher = patcher
        self.lq = lq
        self.strength = strength
        self.sigma_start, self.sigma_end = sigma_start, sigma_end
        self.blocks = {KeyMap().block_of_site(site.module): i for i, site in enumerate(patcher.model.spec.sites)}
        self.features: tuple[torch.Tensor, ...] | None = None
        #: Size of the canvas, and the device, that the features were made for.
        self.canvas: tuple[int, ...] = ()
        self.device: torch.device | None = None

    def models(self) -> list[Any]:
        """What core must have loaded while this patch runs."""
        return [self.patcher]

    def to(self, where: Any) -> GuidancePatch:
        """Core calls it with devices and with dtypes, even 8-bit ones; only a device means anything here."""
        if isinstance(where, torch.device):
            self.cleanup()
        return self

    def cleanup(self) -> None:
        """End of a run."""
        self.features = None

    @torch.compiler.disable
    def __call__(self, h: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        site = self.blocks.get(tuple(options["block"]))
        if site is None or not self._active(options):
            return h
        chunks = len(options["cond_or_uncond"])
        f = self._features(site, h)[site]
        if f.shape[0] > 1:
            # One picture per latent, for every chunk of cond and uncond that core put together.
            f = comfy.utils.repeat_to_batch_size(f, h.shape[0] // chunks).repeat(chunks, 1, 1, 1)
        # In float32: see load_guidance. The UNet goes on in its own dtype.
        return self.patcher.model.fuse(site, h.float(), f, self.strength).to(h.dtype)

    def _active(self, options: dict[str, Any]) -> bool:
        if self.strength == 0:
            return False
        if self.sigma_start == float("inf") and self.sigma_end == 0:
            return True
        return self.sigma_end <= float(options["sigmas"][0]) <= self.sigma_start

    def _features(self, site: int, h: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of every site, made at the first that is reached in a run."""
        scale, need = self.patcher.model.spec.sites[site].scale, tuple(h.shape[-2:])
        if self.features is None or self.device != h.device or not _fits(self.canvas, scale, need):
            lq = self.lq
            if not _fits(lq.shape[-2:], scale, need):
                height, width = (n * scale for n in need)
                log.warning(
                    "Apply PGP-DiffSR: the picture is %d x %d, the latent needs %d x %d; the picture is resized",
                    *(lq.shape[-1], lq.shape[-2], width, height),
                )
                lq = comfy.utils.common_upscale(lq, width, height, "lanczos", "disabled")
            self.features = self.patcher.model.features(lq.to(h.device, torch.float32))
            self.canvas, self.device = tuple(lq.shape[-2:]), h.device
        return self.features


def _fits(canvas: Any, scale: int, need: tuple[int, ...]) -> bool:
    """Whether a canvas has ``need`` feature positions at ``scale``, rounding up."""
    return all(-(-n // scale) == m for n, m in zip(canvas, need, strict=True))


def apply_guidance(
    model: Any, model_patch: Any, image: torch.Tensor, strength: float, start_percent: float, end_percent: float
) -> Any:
    """A copy of a MODEL with guidance; the MODEL itself is not touched.

    Args:
        image: ``(B, H, W, C)`` in [0, 1], the LQ canvas.

    Raises:
        GuidanceError: if the patch is not ours, is there already, or its channels do not fit.
    """
    guidance = getattr(model_patch, "model", None)
    if not isinstance(guidance, Guidance):
        raise GuidanceError(
            "Apply PGP-DiffSR: this MODEL_PATCH is not PGP-DiffSR guidance; connect one of this pack's loaders"
        )
    if start_percent > end_percent:
        raise GuidanceError(
            f"Apply PGP-DiffSR: the guidance would end ({end_percent}) before it starts ({start_percent})"
        )
    patches = model.model_options.get("transformer_options", {}).get("patches", {}).get("input_block_patch", [])
    if any(isinstance(p, GuidancePatch) for p in patches):
        raise GuidanceError("Apply PGP-DiffSR: this MODEL is guided already; guide it once, from the unguided MODEL")
    for site in guidance.spec.sites:
        have = _channels_after(model, KeyMap().block_of_site(site.module)[1])
        if have != site.channels:
            raise GuidanceError(
                f"Apply PGP-DiffSR: this guidance is for {guidance.spec.base} ({site.channels} channels at "
                f"{site.module}), the MODEL has {have} there; load guidance that was made for it"
            )
    if image.ndim != 4 or image.shape[-1] < 3:
        raise GuidanceError(f"Apply PGP-DiffSR: the image must be RGB, got a tensor of shape {tuple(image.shape)}")
    sampling = model.get_model_object("model_sampling")
    sigma_start = float(sampling.percent_to_sigma(start_percent)) if start_percent > 0 else float("inf")
    sigma_end = float(sampling.percent_to_sigma(end_percent)) if end_percent < 1 else 0.0
    guided = model.clone()
    lq = image[..., :3].movedim(-1, 1).contiguous().float()
    guided.set_model_input_block_patch(GuidancePatch(model_patch, lq, strength, sigma_start, sigma_end))
    return guided


def _channels_after(model: Any, block: int) -> int | None:
    """Channels that leave an encoder block of a MODEL's UNet, or None where there is no such UNet."""
    blocks = getattr(model.model.diffusion_model, "input_blocks", None)
    if blocks is None or block >= len(blocks):
        return None
    layers = [m for m in blocks[block].modules() if getattr(m, "out_channels", None)]
    return layers[-1].out_channels if layers else None


# -- VAE and CONDITIONING ------------------------------------------------------------------------------------


class _PixelCodec(torch.nn.Module):
    """Pixel unshuffle in the place of an autoencoder: ``[-1, 1]`` pixels to 48 channels and back."""

    def __init__(self) -> None:
        super().__init__()
        # Core asks a VAE's weights for their size and dtype.
        self.marker = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def encode(self, pixels: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.nn.functional.pixel_unshuffle(pixels, pixel_codec.FACTOR)

    def decode(self, latent: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.nn.functional.pixel_shuffle(latent, pixel_codec.FACTOR)


def pixel_vae() -> comfy.sd.VAE:
    """Nano's VAE as core's own class, so that core's VAE nodes, tiled ones too, work on it."""
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
    vae.first_stage_model = _PixelCodec().eval()
    vae.patcher = comfy.model_patcher.ModelPatcher(
        vae.first_stage_model, load_device=vae.device, offload_device=mm.vae_offload_device()
    )
    vae.size = None
    vae.downscale_ratio = vae.upscale_ratio = pixel_codec.FACTOR
    vae.latent_channels = pixel_codec.CHANNELS
    return vae


def load_nano() -> tuple[Any, Any, Any, Any, Any]:
    """MODEL, MODEL_PATCH, VAE, positive and negative CONDITIONING of the bundled nano model."""
    model = load_unet(str(nano.FOLDER / nano.UNET_FILE))
    guidance = load_guidance(str(nano.FOLDER / nano.GUIDANCE_FILE))
    contexts, _ = _read(str(nano.FOLDER / nano.CONTEXTS_FILE))
    height, width, crop_h, crop_w, target_h, target_w = nano.TIME_IDS
    sizes = {
        "height": height,
        "width": width,
        "crop_h": crop_h,
        "crop_w": crop_w,
        "target_height": target_h,
        "target_width": target_w,
    }

    def conditioning(kind: str) -> list[Any]:
        try:
            context, pooled = contexts[f"{kind}.context"].float(), contexts[f"{kind}.pooled"].float()
        except KeyError as e:
            raise CheckpointError(f"{nano.CONTEXTS_FILE} lacks {e}: install the pack again") from None
        return [[context, {"pooled_output": pooled, **sizes}]]

    return model, guidance, pixel_vae(), conditioning("positive"), conditioning("negative")


# -- one step ------------------------------------------------------------------------------------------------


def one_step_sampler(model: Any, timestep: int) -> tuple[Any, torch.Tensor]:
    """SAMPLER and SIGMAS that compute :func:`pgp_core.one_step.one_step` on a MODEL.

    Raises:
        PGPError: if the MODEL predicts neither noise, nor v, nor the sample.
    """
    sampling = model.get_model_object("model_sampling")
    # V_PREDICTION and X0 are subclasses of EPS in core, and have subclasses that scale their input otherwise.
    kinds = (comfy.model_sampling.V_PREDICTION, comfy.model_sampling.X0, comfy.model_sampling.EPS)
    kind = next((k for k in kinds if isinstance(sampling, k)), None)
    if kind is None or isinstance(sampling, (comfy.model_sampling.IMG_TO_IMG, comfy.model_sampling.EDM)):
        raise PGPError(
            "PGP-DiffSR One Step needs a model that predicts noise, v or the sample, such as SDXL; this MODEL does not"
        )
    sigma = float(sampling.sigma(torch.tensor(float(timestep))))

    def sample(
        denoise: Any, x: torch.Tensor, sigmas: torch.Tensor, extra_args: Any = None, callback: Any = None, **_: Any
    ) -> torch.Tensor:
        if (extra_args or {}).get("denoise_mask") is not None:
            raise PGPError("PGP-DiffSR One Step cannot follow a noise mask: remove Set Latent Noise Mask")
        s = sigmas[0]
        scale = (1 + s**2) ** 0.5

        def predict(z: torch.Tensor, _t: torch.Tensor) -> torch.Tensor:
            # Core divides its input by `scale` and returns x0; both are undone to get the UNet's raw output.
            noised = z * scale
            x0 = denoise(noised, s.expand(z.shape[0]), **(extra_args or {}))
            if kind is comfy.model_sampling.X0:
                return x0
            if kind is comfy.model_sampling.V_PREDICTION:
                return (noised / scale**2 - x0) * scale / s
            return (noised - x0) / s

        z_h = one_step(predict, x, timestep)
        if callback is not None:
            callback({"i": 0, "x": x, "sigma": s, "sigma_hat": s, "denoised": z_h})
        return z_h

    return comfy.samplers.KSAMPLER(sample), torch.tensor([sigma, 0.0])
