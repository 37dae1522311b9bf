"""Any SDXL model without guidance: a checkpoint in LDM's names, a UNet in diffusers' with a one-step LoRA."""

from __future__ import annotations

from pathlib import Path

import narrow_sdxl
import sdxl_files
from restorer_kit import Variant
from safetensors.torch import save_file

from pgp_core.restorers.given import Given

VARIANTS = ("SDXL in steps", "SDXL in one step")

PREFIX = "model.diffusion_model."


def make(name: str, folder: Path) -> Variant:
    once, parts = name.endswith("one step"), narrow_sdxl.beside(folder / "sdxl")
    model = folder / "sdxl" / ("unet.safetensors" if once else "checkpoint.safetensors")
    if not model.exists():
        if once:
            save_file(narrow_sdxl.unet(), model)
        else:
            sdxl_files.checkpoint(model, narrow_sdxl.unet())
    if once:
        loras = (narrow_sdxl.s1(folder / "sdxl" / "s1.safetensors"),)
        given = Given(model=model, loras=loras, one_step=True, cfg=1.0, **parts)
    else:
        loras = ()
        given = Given(base=model, **{k: v for k, v in parts.items() if k != "vae"})
    return Variant(
        name,
        given,
        "a UNet of SDXL" if once else "a checkpoint of SDXL",
        narrow_sdxl.oracle(loras=loras, once=once),
        narrow_sdxl.tiles(once),
        {} if once else {"steps": 2, "seed": 3},
        {} if once else narrow_sdxl.HALVES,
        parts={"S1 LoRA": (loras[0], "lora_unet_conv_in")} if once else {"UNet": (model, PREFIX + "middle_block.")},
        contexts=narrow_sdxl.contexts(),
        vae=narrow_sdxl.VAE_PARAMETERS,
        in_comfyui={"timestep": narrow_sdxl.TIMESTEP},
    )
