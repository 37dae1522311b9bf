"""What PGP-DiffSR Tiling refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.latent_formats
import torch
from pgp_pack.nodes.comfy_backbone import tile_model

from ..raised import raised
from .setting import OVERLAP, TILE, setting, wrapped


def check_tiling_refusals(_out: Path) -> Any:
    nano, image, noise = setting()
    video = nano.model.clone()
    video.add_object_patch("latent_format", comfy.latent_formats.Wan21())
    area = [[nano.positive[0][0], {**nano.positive[0][1], "area": (16, 16, 0, 0), "strength": 1.0}]]
    tiled = tile_model(nano.guided(image), TILE, OVERLAP)

    def with_area(model: Any) -> torch.Tensor:
        prompt, nano.positive = nano.positive, prompt_and_area
        try:
            return nano.sample(model, noise, steps=1)
        finally:
            nano.positive = prompt

    prompt_and_area = nano.positive + area
    return {
        "overlap": raised(lambda: tile_model(nano.model, 96, 128)),
        "small": raised(lambda: tile_model(_with_scale(nano.model, 16), 32, 0)),
        "twice": raised(lambda: tile_model(tile_model(nano.model, 96, 64))),
        "twice, another between": raised(lambda: tile_model(tile_model(tile_model(nano.model)), 96, 64)),
        "video": raised(lambda: tile_model(video)),
        "phase": raised(lambda: tile_model(nano.model, phase="none")),
        "area": raised(lambda: with_area(tiled)),
        "tiles within tiles": raised(
            lambda: nano.sample(tile_model(wrapped(nano.guided(image), _halves), TILE, OVERLAP), noise)
        ),
        "area, unguided": bool(with_area(tile_model(nano.model, TILE, OVERLAP)).isfinite().all()),
    }


def _halves(apply: Any, args: dict[str, Any]) -> torch.Tensor:
    """Another pack's tiles."""
    parts = args["input"].chunk(2, -1)
    return torch.cat([apply(p, args["timestep"], **args["c"]) for p in parts], -1)


def _with_scale(model: Any, scale: int) -> Any:
    copy = model.clone()
    latents = comfy.latent_formats.SDXL()
    latents.spacial_downscale_ratio = scale
    copy.add_object_patch("latent_format", latents)
    return copy
