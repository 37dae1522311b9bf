"""Files of SDXL's kind as narrow as they can be, and runs on them written out; for the makers of its families."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import faithdiff_file
import sdxl_files
import torch
import torch.nn.functional as F
from restorer_kit import Tiles
from run_oracle import Changes, UNet, sampled
from safetensors.torch import save_file

from pgp_core.conditioning import entries as conditioning
from pgp_core.guidance.faithdiff import GROUPS
from pgp_core.sampling.options import SampleOptions
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.topology import KeyMap

Weights = dict[str, torch.Tensor]

#: :func:`sdxl_files.vae` as ComfyUI's autoencoder is told.
VAE_PARAMETERS: dict[str, Any] = {
    "ddconfig": {
        "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 2, 2, 3], "num_res_blocks": 1, "attn_resolutions": [], "dropout": 0.0,
    },
    "embed_dim": 4,
}  # fmt: skip
#: That a one-step LoRA's metadata says.
TIMESTEP = 17
#: float16 rounds to eleven bits, bfloat16 to eight, which is eight times as coarse; what becomes of that through a
#: UNet, CFG of 5 and a decoder was 0.2 and 1.3 levels of 255 at most, and another order of additions may do as much
#: again.
HALVES = {"float16": 0.6 / 255, "bfloat16": 4 / 255}


@lru_cache(1)
def weights() -> Weights:
    """FaithDiff's whole file."""
    return faithdiff_file.state_dict()


def unet() -> Weights:
    """The UNet in it, in diffusers' names."""
    return {k: v for k, v in weights().items() if not k.startswith(GROUPS)}


def ldm(found: Weights) -> Weights:
    """The same in LDM's names."""
    names = KeyMap()
    return {names.to_ldm(k): v.contiguous() for k, v in found.items()}


@lru_cache(1)
def contexts() -> Weights:
    g = torch.Generator().manual_seed(11)
    draw = {k: (torch.randn(1, 7, 32, generator=g), torch.randn(1, 32, generator=g)) for k in ("positive", "negative")}
    return {f"{k}.{name}": v for k, pair in draw.items() for name, v in zip(("context", "pooled"), pair, strict=True)}


def beside(folder: Path) -> dict[str, Path]:
    """VAE and both prompts, by what they are called in :class:`pgp_core.restorers.given.Given`."""
    folder.mkdir(parents=True, exist_ok=True)
    named = ("vae", "conditioning", "negative_conditioning")
    paths = {name: folder / f"{name}.safetensors" for name in named}
    if not paths["vae"].exists():
        save_file(sdxl_files.vae().state_dict(), paths["vae"])
        for name, kind in zip(named[1:], ("positive", "negative"), strict=True):
            context, pooled = (contexts()[f"{kind}.{part}"] for part in ("context", "pooled"))
            conditioning.save(paths[name], [[context, {"pooled_output": pooled}]])
    return paths


def s1(path: Path) -> Path:
    """A LoRA for one step on layers of several kinds."""
    if not path.exists():
        found, g, out = unet(), torch.Generator().manual_seed(4), {}
        for module in (
            "conv_in",
            "down_blocks.2.attentions.0.transformer_blocks.0.attn1.to_q",
            "up_blocks.1.resnets.0.conv1",
        ):
            shape, stem = found[f"{module}.weight"].shape, "lora_unet_" + module.replace(".", "_")
            out[f"{stem}.lora_down.weight"] = torch.randn(4, *shape[1:], generator=g) * 0.1
            out[f"{stem}.lora_up.weight"] = torch.randn(shape[0], 4, *(1 for _ in shape[2:]), generator=g) * 0.1
            out[f"{stem}.alpha"] = torch.tensor(2.0)
        save_file(out, path, {"pgp.s1": json.dumps({"timestep": TIMESTEP})})
    return path


def tiles(once: bool = False) -> Tiles:
    """What may be said of tiles where nobody trained the weights: half of it is measured."""
    return Tiles(
        (64, 256), 160, 64, 65 / 255 if once else 33 / 255, 1.0,
        "random weights attend to all positions alike, so a tile's means are its own; one step takes the whole of "
        "what they say away from the picture, two steps with sigmas below it a part",
    )  # fmt: skip


def oracle(
    changes: Callable[[torch.Tensor, torch.dtype], Changes] = lambda _lq, _dtype: {},
    found: Callable[[], Weights] = unet,
    build: Callable[[], Any] = lambda: build_unet(faithdiff_file.NARROW),
    loras: Sequence[Path] = (),
    once: bool = False,
) -> Callable[[torch.Tensor, SampleOptions, torch.dtype], torch.Tensor]:
    """A run written out, see :class:`restorer_kit.Variant`.

    Args:
        changes: what the guidance does to the features of a call, from the canvas.
        found: the UNet's weights in diffusers' names.
        build: makes diffusers' UNet.
        once: by the residual rule at :data:`TIMESTEP`.
    """

    @torch.no_grad()
    def run(canvas: torch.Tensor, options: SampleOptions, dtype: torch.dtype) -> torch.Tensor:
        height, width = canvas.shape[-2:]
        lq = F.pad(canvas.to(dtype), (0, -width % 8, 0, -height % 8), mode="reflect")
        vae, model = sdxl_files.vae().to(dtype), UNet(build, found(), contexts(), dtype, loras)
        sides, acting = lq.shape[-2:], changes(lq, dtype)
        z_l = vae.encode(lq * 2 - 1).latent_dist.mode() * 0.13025

        def predict(x: torch.Tensor, t: int) -> torch.Tensor:
            return model(x, t, 1.0 if once else options.cfg, (*sides, 0, 0, *sides), acting)

        z_h = z_l - predict(z_l, TIMESTEP) if once else sampled(predict, z_l, options)
        return (vae.decode(z_h / 0.13025).sample / 2 + 0.5)[..., :height, :width].clamp(0, 1)

    return run
