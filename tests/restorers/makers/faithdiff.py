"""FaithDiff's published file, narrow: the UNet with LQ encoder and alignment beside it."""

from __future__ import annotations

from pathlib import Path

import faithdiff_file
import narrow_sdxl
import torch
from restorer_kit import Variant
from run_oracle import Changes

from pgp_core.restorers.given import Given

VARIANTS = ("FaithDiff in steps", "FaithDiff in one step")


def _aligned(lq: torch.Tensor, dtype: torch.dtype) -> Changes:
    """The authors' own modules behind ``conv_in``."""
    authors = faithdiff_file.authors().to(dtype)
    c = authors.encode(lq * 2 - 1)
    return {"conv_in": lambda h: authors.align(h, c.repeat(h.shape[0], 1, 1, 1))}


def make(name: str, folder: Path) -> Variant:
    once, parts = name.endswith("one step"), narrow_sdxl.beside(folder / "faithdiff")
    model = folder / "faithdiff" / "FaithDiff.bin"
    if not model.exists():
        torch.save(narrow_sdxl.weights(), model)
    loras = (narrow_sdxl.s1(folder / "faithdiff" / "s1.safetensors"),) if once else ()
    return Variant(
        name,
        Given(model=model, loras=loras, one_step=once, cfg=1.0 if once else None, **parts),
        "FaithDiff: a UNet of SDXL, with its LQ encoder and alignment",
        narrow_sdxl.oracle(_aligned, loras=loras, once=once),
        narrow_sdxl.tiles(once),
        {} if once else {"steps": 2, "seed": 3},
        {} if once else narrow_sdxl.HALVES,
        # Its UNet is read as any of SDXL's.
        parts={} if once else {"guidance": (model, "information_transformer_layes.")},
        contexts=narrow_sdxl.contexts(),
        vae=narrow_sdxl.VAE_PARAMETERS,
        in_comfyui={"guidance": model, "timestep": narrow_sdxl.TIMESTEP, **({} if once else {"start": "noise"})},
    )
