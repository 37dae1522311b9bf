"""Nano's VAE through core's class, and previews."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import latent_preview
import torch
from comfy.cli_args import LatentPreviewMethod, args
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone.nano import load_decoder
from pgp_pack.pgp_core.codecs.decoder_file import write_decoder

from . import scene

DRAWN = "drawn-decoder.safetensors"


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


def check_decoder(out: Path) -> Any:
    """Nano's VAE with a learned decoder whose weights are drawn, read by core's reader."""
    decoder = scene.drawn_decoder()
    write_decoder(out.parent / DRAWN, decoder)
    vae = comfy_backbone.pixel_vae(load_decoder(out.parent / DRAWN))
    image = scene.pictures(1, batch=2, height=40, width=56)
    latent = vae.encode(image)
    tiles = [vae.decode_tiled(latent.clone(), tile_x=t, tile_y=t, overlap=o) for t, o in ((16, 4), (64, 0))]
    larger = vae.encode(scene.pictures(2, height=150, width=140))
    scene.save(
        out,
        latent=latent,
        decoded=vae.decode(latent.clone()),
        larger=larger,
        larger_decoded=vae.decode(larger.clone()),
    )
    return {
        "same in core's tiles": [bool(torch.equal(t, vae.decode(latent.clone()))) for t in tiles],
        "encode tiled": scene.difference(vae.encode_tiled(image, tile_x=64, tile_y=64, overlap=16), latent),
        "loaded": [str(p.device) == str(vae.device) for p in vae.first_stage_model.parameters()],
        "memory": float(vae.memory_used_decode((1, 48, 128, 128), torch.float32)),
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
