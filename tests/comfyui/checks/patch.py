"""The guidance patch itself, called as core's UNet calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from pgp_pack.nodes.comfy_backbone.guidance.features import LQFeatures
from pgp_pack.nodes.comfy_backbone.guidance.loading import attention
from pgp_pack.pgp_core.guidance.module import Guidance, GuidanceSpec, Site

from . import scene

#: Nano's PEAM stands behind this block, at half the latent's size.
BLOCK, CHANNELS = ("input", 3), 64
OPTIONS = {"block": BLOCK, "cond_or_uncond": [0], "sigmas": torch.ones(1)}


def check_half_precision_features(_out: Path) -> Any:
    """Hidden values far beyond float16's largest, 65504; the last convolution brings them back."""
    nano = scene.Nano()
    (peam,) = nano.patch.model.peam.values()
    *inner, last = peam.convs
    for conv in inner:
        conv.weight.mul_(6)
    last.weight.div_(6.0 ** len(inner))
    patch = scene.patch_of(nano.guided(scene.pictures(1)))
    hidden: list[float] = []
    last.register_forward_pre_hook(lambda _, x: hidden.append(float(x[0].abs().max())))
    h = torch.randn(1, CHANNELS, 9, 7, generator=torch.Generator().manual_seed(0))
    expected = patch(h.half().float(), OPTIONS)
    fused = patch(h.half(), OPTIONS)
    patch.cleanup()
    return {
        "hidden": max(hidden),
        "dtype": str(fused.dtype),
        "from float32": scene.difference(fused.float(), expected),
        "largest": float(expected.abs().max()),
    }


def check_features_for_another_size(_out: Path) -> Any:
    """Features that were left over fit no other latent, so they are made again."""
    nano = scene.Nano()
    patch = scene.patch_of(nano.guided(scene.pictures(1)))
    sizes = []
    features = Guidance.features

    def noting(self: Any, lq: torch.Tensor, *args: Any) -> Any:
        sizes.append(list(lq.shape[-2:]))
        return features(self, lq, *args)

    with replace.object(Guidance, "features", noting):
        for height, width in ((9, 7), (9, 7), (5, 4)):
            assert patch(torch.ones(1, CHANNELS, height, width), OPTIONS).shape[-2:] == (height, width)
    patch.cleanup()
    return {"canvases": sizes}


def check_features_in_tiles(_out: Path) -> Any:
    """A canvas of more than a tile: what core is asked to make room for, and the encoder with core's layers."""
    torch.manual_seed(0)
    spec = GuidanceSpec(sites=(Site("conv_in", 32, 0, 2, "alignment"),), encoder_channels=(32, 32))
    guidance = Guidance(spec, operations=comfy.ops.manual_cast, attention=attention()).requires_grad_(False)
    # Core's layers begin with whatever lies in memory.
    guidance.load_state_dict(Guidance(spec).state_dict())
    patcher = comfy.model_patcher.CoreModelPatcher(guidance, torch.device("cpu"), torch.device("cpu"))
    lq = torch.rand(1, 3, 128, 96, generator=torch.Generator().manual_seed(1))
    (whole,) = guidance.features(lq)
    asked: list[int] = []
    half = [torch.float32]
    results: dict[str, Any] = {}
    with (
        replace.object(mm, "load_models_gpu", lambda _, memory_required: asked.append(memory_required)),
        replace.object(mm, "vae_dtype", lambda *_: half[0]),
    ):
        for name, tile, dtype in (
            ("whole", 128, torch.float32),
            ("tiled", 64, torch.float32),
            ("tiled half", 64, torch.bfloat16),
            ("overflowing", 64, torch.float16),
        ):
            half[0] = dtype
            if name == "overflowing":
                # Beyond float16's largest, 65504, and back.
                last = guidance.lq_encoder.mid_block.resnets[1].conv2
                last.weight.mul_(1e6)
            features = LQFeatures(patcher, lq)
            features.tiles.tile = tile
            f = features.whole(0, (64, 48), make_room=True)
            results[name] = {
                "device": f.device.type,
                "dtype": str(f.dtype),
                "shape": list(f.shape),
                "equal": torch.equal(f, whole),
                "difference": float((f.float() - whole).pow(2).mean().sqrt() / whole.std()),
                "finite": bool(f.isfinite().all()),
            }
    return results | {"asked": asked}
