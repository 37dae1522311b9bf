"""Nano: the files that ship, copied as a user's own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
from guidance_oracle import Written
from restorer_kit import Tiles, Variant
from run_oracle import UNet, sampled
from safetensors import safe_open
from safetensors.torch import load_file

from pgp_core.restorers.given import Given
from pgp_core.restorers.nano.model import FOLDER
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet.known import NANO_SHAPE
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import PrunePlan
from pgp_core.unet.topology import KeyMap

VARIANTS = ("nano in one step", "nano in steps")

#: As the model card has it: the residual's scale and spread, and constant micro-conditioning.
SCALE, SPREAD, SIZES = 21.0, 1.75, (512.0, 512.0, 0.0, 0.0, 512.0, 512.0)
SITE = "down_blocks.0.downsamplers.0"


def make(name: str, folder: Path) -> Variant:
    files = folder / "nano"
    if not files.exists():
        shutil.copytree(FOLDER, files)
    unet, guidance, contexts = (files / f"pgp-nano-{x}.safetensors" for x in ("unet", "guidance", "contexts"))
    once = name == "nano in one step"
    loras = [files / "loras" / "pgp-nano-s1.safetensors"] if once else []

    @torch.no_grad()
    def oracle(canvas: torch.Tensor, options: SampleOptions, dtype: torch.dtype) -> torch.Tensor:
        """Pixel unshuffle as the codec, the residual rule or Euler's steps on the residual, PEAM written out."""
        height, width = canvas.shape[-2:]
        lq = F.pad(canvas.to(dtype), (0, -width % 4, 0, -height % 4), mode="reflect")
        with safe_open(str(unet), framework="pt") as file:
            plan = PrunePlan.from_json(json.loads(file.metadata()["pgp.plan"]))
        names = KeyMap()
        weights = {names.to_diffusers(k): v for k, v in load_file(unet).items()}
        written = Written(guidance, dtype, 4, -2.0, 2.0)
        features = written.features(lq)
        changes = {
            "conv_in": lambda h: h + features[0],
            SITE: lambda h: written.peam(1, h, features[2]),
        }
        model = UNet(lambda: build_unet(NANO_SHAPE, plan), weights, load_file(contexts), dtype, loras)

        def predict(x: torch.Tensor, t: int) -> torch.Tensor:
            return model(x, t, 1.0 if once else options.cfg, SIZES, changes)

        z_l = F.pixel_unshuffle(lq * 2 - 1, 4)
        if once:
            z_h = z_l - predict(z_l * SCALE, 999) / SCALE
        else:
            z_h = z_l + sampled(predict, z_l, options, "v_prediction", SPREAD) / SCALE
        return ((F.pixel_shuffle(z_h, 4) + 1) / 2)[..., :height, :width].clamp(0, 1)

    return Variant(
        name,
        Given(model=unet, one_step=once),
        "nano UNet, pgp-nano",
        oracle,
        Tiles(
            (160, 224),
            96,
            32,
            # 0.7 and 8 levels were measured.
            2 / 255,
            16 / 255,
            "each tile exchanges the phase of its own features, and attention sees no further than the tile",
        ),
        {} if once else {"steps": 4, "cfg": 1.5, "seed": 3},
        # Eleven and eight bits of a residual that is a tenth of the picture: 0.04 and 0.3 levels were measured.
        {"float16": 0.15 / 255, "bfloat16": 1.2 / 255} if once else {},
        largest=(513, 777) if once else (130, 194),
        parts={
            "UNet": (unet, "middle_block."),
            "guidance": (guidance, "pgp.peam."),
            "contexts": (contexts, ""),
            **({"S1 LoRA": (loras[0], "lora_unet_mid_block")} if once else {}),
        },
        leaves_surplus=frozenset({"contexts"}),
        contexts=load_file(contexts),
        sizes=SIZES,
        in_comfyui={"guidance": guidance, "loras": loras},
    )
