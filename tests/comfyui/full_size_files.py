"""Narrow files of the real layout, for the workflows that need the user's files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faithdiff_file
import torch
from faithdiff_file import NARROW
from safetensors.torch import load_file, save_file

from pgp_core.conditioning import entries as conditioning
from pgp_core.guidance.convert import convert
from pgp_core.guidance.fresh import fresh_spec
from pgp_core.guidance.module import KEY_PREFIX, METADATA_KEY, Guidance
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune import prune_state_dict


def _sdxl_vae(file: Path) -> None:
    """Random weights in diffusers' keys, which core converts."""
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
        )
    save_file({k: v.half() for k, v in vae.state_dict().items()}, file)


def _guidance(file: Path) -> None:
    """LQ adapter and PEAM as if trained: a fresh PEAM changes nothing."""
    spec = dataclasses.replace(fresh_spec(NARROW.channels[0]), trained=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        guidance = Guidance.fresh(spec)
        torch.nn.init.normal_(guidance.peam["0"].convs[-1].weight, std=0.05)  # type: ignore[index,union-attr]
    tensors = {KEY_PREFIX + k: v for k, v in guidance.state_dict().items()}
    save_file(tensors, file, {METADATA_KEY: json.dumps(spec.to_json())})


NAMES = (
    "diffusion_models/FaithDiff.bin",
    "diffusion_models/pgp-diffsr-unet.safetensors",
    "diffusion_models/broken.safetensors",
    "model_patches/pgp-diffsr-guidance.safetensors",
    "model_patches/broken.safetensors",
    "vae/sdxl_vae.safetensors",
    "conditioning/positive.safetensors",
    "conditioning/negative.safetensors",
)


def write_files(folder: Path) -> None:
    """A file for every name, as in ComfyUI's ``models``: 200 MB, most of it the VAE."""
    files = [folder / name for name in NAMES]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
    faithdiff, pruned, broken, guidance, broken_guidance, vae, *contexts = files
    torch.save(faithdiff_file.state_dict(), faithdiff)
    whole, alignment = convert(faithdiff, folder / "converted", torch.float32)
    save_file(prune_state_dict(load_file(whole), load_plan("pgp-sdxl")), pruned)
    whole.unlink()
    alignment.unlink()
    _guidance(guidance)
    for file in (broken, broken_guidance):
        file.write_bytes(b"\xff" * 1000)
    _sdxl_vae(vae)
    sizes = {"width": 96, "height": 64, "crop_w": 0, "crop_h": 0, "target_width": 96, "target_height": 64}
    for seed, file in enumerate(contexts):
        g = torch.Generator().manual_seed(seed)
        context, pooled = torch.randn(1, 77, NARROW.context_dim, generator=g), torch.randn(1, 32, generator=g)
        conditioning.save(file, [[context, {"pooled_output": pooled, **sizes}]])


@contextmanager
def placed(written: Path, models: Path) -> Iterator[Path]:
    """The written files in ComfyUI's ``models``, gone afterwards: other tests find none there."""
    files = [models / name for name in NAMES]
    for name, file in zip(NAMES, files, strict=True):
        file.parent.mkdir(exist_ok=True)
        shutil.copyfile(written / name, file)
    try:
        yield models
    finally:
        for file in files:
            file.unlink()
