"""How large a tile may be at first."""

from __future__ import annotations

from typing import Any

import torch

from ..memory import available
from .automatic import automatic

#: Bytes that a UNet call takes per latent position, by its first level's channels and the size of a number: skips,
#: features and attention of SDXL's levels. An estimate: a process with full SDXL in float32 took about 70 KB a position
#: beyond its weights.
_PER_POSITION = 60


def first_tile(unet: Any, x: torch.Tensor, copies: int, overlap: int) -> int | None:
    """Side of the tiles to begin with, in latent positions; None where the whole latent should do.

    Args:
        unet: diffusers' or ours.
        x: ``(B, C, h, w)``, the latent.
        copies: how many times the batch the UNet is given (CFG).
        overlap: what neighbours share, in latent positions.
    """
    free = available(x.device)
    channels = getattr(getattr(unet, "conv_in", None), "out_channels", None)
    weight = next(iter(unet.parameters()), None)
    if free is None or not channels or weight is None:
        return automatic(x.shape[-2], x.shape[-1], overlap, None)
    each = _PER_POSITION * channels * weight.element_size() * copies * x.shape[0]
    # A fifth is left to what else grows: the result, its weights, features of the guidance.
    return automatic(x.shape[-2], x.shape[-1], overlap, 0.8 * free / each)
