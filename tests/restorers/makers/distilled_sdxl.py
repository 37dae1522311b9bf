"""What was distilled from SDXL, as published: UNets in diffusers' names, from their own configurations."""

from __future__ import annotations

from pathlib import Path

import distilled
import narrow_sdxl
from faithdiff_file import NARROW
from restorer_kit import Variant

from pgp_core.restorers.given import Given

VARIANTS = ("SSD-1B", "Segmind Vega", "KOALA-700M", "KOALA-1B")


def make(name: str, folder: Path) -> Variant:
    topology, files = name.lower().replace(" ", "-"), folder / "distilled"
    parts, model = narrow_sdxl.beside(files), files / f"{topology}.safetensors"
    if not model.exists():
        distilled.write(files, topology)
    # One of them is enough to show what is read by the same code.
    shown = name == VARIANTS[0]
    return Variant(
        name,
        Given(model=model, **parts),
        f"a UNet of {name}, distilled from SDXL",
        narrow_sdxl.oracle(
            found=lambda: distilled.narrow(topology).state_dict(),
            build=lambda: distilled.by_diffusers(topology, NARROW.channels, NARROW.context_dim, NARROW.pooled_dim),
        ),
        narrow_sdxl.tiles(),
        {"steps": 2, "seed": 3},
        narrow_sdxl.HALVES if shown else {},
        parts={"UNet": (model, "mid_block.")} if shown else {},
        contexts=narrow_sdxl.contexts(),
        vae=narrow_sdxl.VAE_PARAMETERS,
    )
