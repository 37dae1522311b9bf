"""Lanczos for pictures of any number of channels, transparent ones too."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from .transparency import bleed, without_ringing
from .wrap import PLAIN, Wrap


def resize(
    image: Image.Image, width: int, height: int, box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    """Lanczos, in 8 bits a channel, which is also what ComfyUI's "lanczos" does; of a part of the picture, which sees
    what is around it, where there is a box."""
    return image.resize((width, height), Image.Resampling.LANCZOS, box)


def resample(
    pictures: torch.Tensor,
    width: int,
    height: int,
    wrap: Wrap = PLAIN,
    part: tuple[float, float, float, float] | None = None,
) -> torch.Tensor:
    """Lanczos in float32, for canvases.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1].
        wrap: along which axes they repeat.
        part: left, upper, right and lower border of what is resampled, in pixels and parts of them; None for all. What
            lies beyond is looked at. Along an axis that repeats it is the whole.

    Returns:
        ``(B, C, height, width)`` float32 in [0, 1] on the same device.
    """
    if part is None and pictures.shape[-2:] == (height, width):
        return pictures.float()
    out = torch.empty(*pictures.shape[:2], height, width)
    box = part
    if wrap:
        across, down = pictures.shape[-1], pictures.shape[-2]
        x0, y0, x1, y1 = part or (0, 0, across, down)
        # Lanczos looks at three pixels of the coarser grid.
        reach = 4 * max(1, -(-across // width), -(-down // height))
        left, top = (reach if dim in wrap.dims else 0 for dim in (-1, -2))
        box = (x0 + left, y0 + top, x1 + left, y1 + top)
        pictures = wrap.around(pictures, reach)
    for picture, target in zip(pictures, out, strict=True):
        for plane, place in zip(picture, target, strict=True):
            image = Image.fromarray(plane.float().cpu().numpy(), mode="F")
            place.copy_(torch.from_numpy(np.array(resize(image, width, height, box))))
    return out.clamp_(0, 1).to(pictures.device)


def enlarge(pictures: torch.Tensor, width: int, height: int, wrap: Wrap = PLAIN) -> torch.Tensor:
    """:func:`resample` for pictures that may have an alpha channel.

    The visible colours are carried under what is transparent first, so that none that was hidden comes into view.

    Args:
        pictures: ``(B, C, H, W)`` in [0, 1]; the fourth of four channels is alpha, which no colour is multiplied by.
        wrap: along which axes they repeat.

    Returns:
        ``(B, C, height, width)`` float32 in [0, 1] on the same device.
    """
    if pictures.shape[1] != 4:
        return resample(pictures, width, height, wrap)
    around = min(pictures.shape[-2:])
    seen = wrap.inner(bleed(wrap.around(pictures, around)), around)
    large = resample(seen, width, height, wrap)
    return torch.cat([large[:, :3], without_ringing(pictures[:, 3:], large[:, 3:], wrap)], 1)


def coarse(
    pictures: torch.Tensor, across: int, down: int, enlarges: int, spare: tuple[int, int], wrap: Wrap
) -> torch.Tensor:
    """Pictures on a grid some times as coarse as the result's, see :func:`canvas`.

    Args:
        spare: pixels of the result that the grid has beyond it, across and down.
    """
    if pictures.shape[1] == 4:
        around = min(pictures.shape[-2:])
        pictures = wrap.inner(bleed(wrap.around(pictures, around)), around)[:, :3]
    if not any(spare):
        return resample(pictures, across, down, wrap)
    box: list[float] = [0.0, 0.0, *pictures.shape[:-3:-1]]
    for axis, (cells, extra) in enumerate(zip((across, down), spare, strict=True)):
        if not extra:
            continue
        dim, size = -1 - axis, pictures.shape[-1 - axis]
        # Pixels of the picture for one of the result.
        step = size / (enlarges * cells - extra)
        pad_by = math.ceil((extra - extra // 2) * step)
        amounts = (pad_by, pad_by, 0, 0) if dim == -1 else (0, 0, pad_by, pad_by)
        pictures = F.pad(pictures.float(), amounts, mode="reflect" if pad_by < size else "replicate")
        box[axis] = pad_by - extra // 2 * step
        box[axis + 2] = pad_by + size + (extra - extra // 2) * step
    return resample(pictures, across, down, wrap, (box[0], box[1], box[2], box[3]))
