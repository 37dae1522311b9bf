"""How large a tile may be at first, and giving memory back."""

from __future__ import annotations

import gc
from typing import Any

import torch

from .automatic import automatic

#: Bytes that a UNet call takes per latent position, by its first level's channels and the size of a number: skips,
#: features and attention of SDXL's levels. An estimate: a process with full SDXL in float32 took about 70 KB a position
#: beyond its weights.
_PER_POSITION = 60


def first_tile(unet: Any, x: torch.Tensor, copies: int, overlap: int) -> int | None:
    """Side of the tiles to begin with, in latent positions; None where the whole latent should do.

    Args:
        unet: a diffusers UNet.
        x: ``(B, C, h, w)``, the latent.
        copies: how many times the batch the UNet is given (CFG).
        overlap: what neighbours share, in latent positions.
    """
    free = available(x.device)
    channels = getattr(getattr(unet, "config", None), "block_out_channels", None)
    weight = next(iter(unet.parameters()), None)
    if free is None or not channels or weight is None:
        return automatic(x.shape[-2], x.shape[-1], overlap, None)
    each = _PER_POSITION * channels[0] * weight.element_size() * copies * x.shape[0]
    # A fifth is left to what else grows: the result, its weights, features of the guidance.
    return automatic(x.shape[-2], x.shape[-1], overlap, 0.8 * free / each)


def available(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where nothing says."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    return _said_by_linux("MemAvailable:") if device.type == "cpu" else None


def with_swap() -> int | None:
    """Bytes that processes can still have in all, on disk too; None where nothing says."""
    memory, swap = _said_by_linux("MemAvailable:"), _said_by_linux("SwapFree:")
    return None if memory is None else memory + (swap or 0)


def _said_by_linux(name: str) -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def free_memory(device: torch.device) -> None:
    """Give back what nothing uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
