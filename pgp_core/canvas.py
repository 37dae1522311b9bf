"""From a picture to the LQ canvas that the model works on, and back to the exact size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image

#: A canvas is padded to a multiple of this many pixels: latents of 1/4 (nano) or 1/8, halved twice by the UNet.
MULTIPLE = {"pgp-nano": 16, "sdxl": 32}


def resize(image: Image.Image, width: int, height: int) -> Image.Image:
    """Lanczos, in 8 bits a channel, which is also what ComfyUI's "lanczos" does."""
    return image.resize((width, height), Image.Resampling.LANCZOS)


def pad(rgb: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad ``(B, C, H, W)`` at the right and lower border to multiples: reflection where the picture is
    large enough, repetition of the edge where it is not. Crop with ``[..., :H, :W]``."""
    height, width = rgb.shape[-2:]
    for axis, size in ((0, width), (1, height)):
        extra = -size % multiple
        if extra:
            amounts = (0, extra, 0, 0) if axis == 0 else (0, 0, 0, extra)
            rgb = F.pad(rgb, amounts, mode="reflect" if extra < size else "replicate")
    return rgb
