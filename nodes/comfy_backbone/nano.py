"""Nano: its VAE, and everything of it at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.ops
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher

from ...pgp_core.codecs import pixel as pixel_codec
from ...pgp_core.codecs.decoder import TILE, PixelDecoder
from ...pgp_core.codecs.decoder_file import of_tensors
from ...pgp_core.errors import CheckpointError
from ...pgp_core.restorers.nano import model as nano
from .files import read
from .guidance import load_guidance
from .model import load_unet


class _PixelCodec(torch.nn.Module):
    """Pixel unshuffle in the place of an autoencoder: ``[-1, 1]`` pixels to 48 channels and back.

    Args:
        decoder: redraws what comes out.
    """

    def __init__(self, decoder: PixelDecoder | None = None) -> None:
        super().__init__()
        self.decoder = decoder
        # Core asks a VAE's weights for their size and dtype.
        self.marker = torch.nn.Parameter(torch.zeros(1), requires_grad=False)

    def encode(self, pixels: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.nn.functional.pixel_unshuffle(pixels, pixel_codec.FACTOR)

    def decode(self, latent: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        picture = torch.nn.functional.pixel_shuffle(latent, pixel_codec.FACTOR)
        return picture if self.decoder is None else self.decoder.drawn(picture)

    # Core's own tiles would be blended; these need not be, and take no more memory for a larger picture.
    encode_tiled, decode_tiled = encode, decode


def pixel_vae(decoder: PixelDecoder | None = None) -> comfy.sd.VAE:
    """Nano's VAE as core's own class, so that core's VAE nodes, tiled ones too, work on it.

    Args:
        decoder: a learned one, on the CPU in float32.
    """
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)}, dtype=torch.float32)
    vae.first_stage_model = _PixelCodec(decoder).eval()
    vae.patcher = ModelPatcher(vae.first_stage_model, load_device=vae.device, offload_device=mm.vae_offload_device())
    vae.size = None
    vae.downscale_ratio = vae.upscale_ratio = pixel_codec.FACTOR
    vae.latent_channels = pixel_codec.CHANNELS
    if decoder is not None:
        vae.handles_tiling = True
        # The picture before and after, and of one tile what two layers hold.
        tile = 2 * decoder.shape.width * (TILE + 2 * decoder.reach) ** 2
        vae.memory_used_decode = lambda shape, dtype: (
            (2 * pixel_codec.CHANNELS * shape[-2] * shape[-1] + tile) * mm.dtype_size(dtype)
        )
    return vae


def load_decoder(path: Path) -> PixelDecoder:
    """Nano's learned decoder, read by core.

    Raises:
        CheckpointError: if it is damaged, or something else.
    """
    tensors, metadata = read(str(path))
    return of_tensors(tensors, metadata, path.name, comfy.ops.disable_weight_init)


def load_nano(files: nano.Files | None = None) -> tuple[ModelPatcher, Any, comfy.sd.VAE, list[Any], list[Any]]:
    """MODEL, MODEL_PATCH, VAE, positive and negative CONDITIONING of a nano model.

    Args:
        files: by default the bundled ones.
    """
    files = files or nano.Files(nano.FOLDER)
    model = load_unet(str(files.folder / files.unet))
    guidance = load_guidance(str(files.folder / files.guidance))
    contexts, _ = read(str(files.folder / files.contexts))
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
            raise CheckpointError(f"{files.contexts} lacks {e}: install the pack again") from None
        return [[context, {"pooled_output": pooled, **sizes}]]

    path = files.decoder_path
    vae = pixel_vae(None if path is None else load_decoder(path))
    return model, guidance, vae, conditioning("positive"), conditioning("negative")
