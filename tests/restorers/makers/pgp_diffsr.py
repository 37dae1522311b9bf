"""PGP-DiffSR as its own tools write it: a pruned UNet in LDM's names, and guidance with PEAM and LQ adapter."""

from __future__ import annotations

import json
from pathlib import Path

import narrow_sdxl
import torch
from faithdiff_file import NARROW
from guidance_oracle import Written
from restorer_kit import Variant
from run_oracle import Changes
from safetensors.torch import save_file
from sdxl_scene import peam_file

from pgp_core.restorers.given import Given
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import load_plan
from pgp_core.unet.topology import split_block

VARIANTS = ("PGP-DiffSR in steps", "PGP-DiffSR in one step")

SITE = "down_blocks.0.downsamplers.0"


def _kept() -> narrow_sdxl.Weights:
    plan = load_plan("pgp-sdxl")
    return {k: v for k, v in narrow_sdxl.unet().items() if not (b := split_block(k)) or plan.keeps(*b)}


def make(name: str, folder: Path) -> Variant:
    once, parts = name.endswith("one step"), narrow_sdxl.beside(folder / "pgp")
    model, guidance = (folder / "pgp" / f"{x}.safetensors" for x in ("pgp-unet", "pgp-guidance"))
    if not model.exists():
        plan = load_plan("pgp-sdxl")
        save_file(narrow_sdxl.ldm(_kept()), model, {"pgp.plan": json.dumps(plan.to_json())})
        peam_file(guidance)
    loras = (narrow_sdxl.s1(folder / "pgp" / "s1.safetensors"),) if once else ()

    def peam(lq: torch.Tensor, dtype: torch.dtype) -> Changes:
        written = Written(guidance, dtype, 16, residual=False)
        (feature,) = written.features(lq)
        return {SITE: lambda h: written.peam(0, h, feature)}

    return Variant(
        name,
        Given(model=model, guidance=guidance, loras=loras, one_step=once, cfg=1.0 if once else None, **parts),
        "a UNet of SDXL, pruned (pgp-sdxl), for PGP-DiffSR",
        narrow_sdxl.oracle(peam, _kept, lambda: build_unet(NARROW, load_plan("pgp-sdxl")), loras, once),
        narrow_sdxl.tiles(once),
        {} if once else {"steps": 2, "seed": 3},
        {} if once else narrow_sdxl.HALVES,
        parts={} if once else {"UNet": (model, "middle_block."), "guidance": (guidance, "pgp.lq_adapter.")},
        contexts=narrow_sdxl.contexts(),
        vae=narrow_sdxl.VAE_PARAMETERS,
        in_comfyui={"timestep": narrow_sdxl.TIMESTEP, **({} if once else {"start": "noise"})},
    )
