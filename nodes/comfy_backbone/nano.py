"""Nano: its VAE, and everything of it at once."""

from __future__ import annotations

from typing import Any

import comfy.model_management as mm
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher

from ...pgp_core.codecs import pixel as pixel_codec
from ...pgp_core.errors import CheckpointError
from ...pgp_core.restorers.nano import model as nano
from .files import read
from .guidance import load_guidance
from .model import load_unet


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
    vae.patcher = ModelPatcher(vae.first_stage_model, load_device=vae.device, offload_device=mm.vae_offload_device())
    vae.size = None
    vae.downscale_ratio = vae.upscale_ratio = pixel_codec.FACTOR
    vae.latent_channels = pixel_codec.CHANNELS
    return vae


def load_nano() -> tuple[ModelPatcher, Any, comfy.sd.VAE, list[Any], list[Any]]:
    """MODEL, MODEL_PATCH, VAE, positive and negative CONDITIONING of the bundled nano model."""
    model = load_unet(str(nano.FOLDER / nano.UNET_FILE))
    guidance = load_guidance(str(nano.FOLDER / nano.GUIDANCE_FILE))
    contexts, _ = read(str(nano.FOLDER / nano.CONTEXTS_FILE))
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
