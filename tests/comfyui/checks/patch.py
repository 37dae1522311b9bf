"""The guidance patch itself, called as core's UNet calls it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import torch
from pgp_pack.pgp_core.guidance import Guidance

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
        for height, width in ((9, 7), (9, 7), (4, 8)):
            assert patch(torch.ones(1, CHANNELS, height, width), OPTIONS).shape[-2:] == (height, width)
    patch.cleanup()
    return {"canvases": sizes}
