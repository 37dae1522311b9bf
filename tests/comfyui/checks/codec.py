"""Nano's VAE through core's class, and previews."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import latent_preview
from comfy.cli_args import LatentPreviewMethod, args
from pgp_pack.nodes import comfy_backbone

from . import scene


def check_vae(_out: Path) -> Any:
    vae = comfy_backbone.pixel_vae()
    # Larger than a tile in both directions.
    image = scene.pictures(1, batch=2, height=40, width=56)
    latent = vae.encode(image)
    odd = vae.encode(scene.pictures(1, height=10, width=10)[:, :-3, :-1])
    tile = {"tile_x": 64, "tile_y": 64, "overlap": 16}
    return {
        "latent": list(latent.shape),
        "latent of 37 x 39": list(odd.shape),
        "range": [float(latent.min()), float(latent.max())],
        "round trip": scene.difference(vae.decode(latent.clone()), image),
        "encode tiled": scene.difference(vae.encode_tiled(image, **tile), latent),
        "decode tiled": scene.difference(vae.decode_tiled(latent, tile_x=16, tile_y=16, overlap=4), image),
    }


def check_preview(_out: Path) -> Any:
    nano = scene.Nano()
    model = nano.guided(scene.pictures(1))
    with replace.object(args, "preview_method", LatentPreviewMethod.Latent2RGB):
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
    shown = []

    def callback(_step: int, x0: Any, *_: Any) -> None:
        kind, picture, _largest = previewer.decode_latent_to_preview_image("JPEG", x0)
        shown.append([kind, picture.mode, *picture.size])

    nano.sample(model, scene.noise(), steps=2, callback=callback)
    return {"previewer": type(previewer).__name__, "shown": shown}
