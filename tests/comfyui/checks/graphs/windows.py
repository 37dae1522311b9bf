"""Context windows over a guided batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from comfy_extras.nodes_context_windows import ContextWindowsManualNode
from pgp_pack.nodes.comfy_backbone import tile_model

from .. import scene
from ..raised import raised
from .averages import Averages, seen

HEIGHT, WIDTH, FRAMES = 9, 7, 7


def _windows(model: Any, length: int = 3, overlap: int = 1, **options: Any) -> Any:
    settings: dict[str, Any] = {
        "context_schedule": "standard_static",
        "context_stride": 1,
        "closed_loop": False,
        "fuse_method": "pyramid",
        "dim": 0,
        "freenoise": False,
    }
    return ContextWindowsManualNode.execute(model, length, overlap, **(settings | options)).args[0]


def check_windows(_out: Path) -> Any:
    nano = Averages()
    image, noise = scene.pictures(1, FRAMES, HEIGHT, WIDTH), scene.noise(FRAMES, HEIGHT, WIDTH)
    guided = nano.guided(image)
    results: dict[str, Any] = {}
    for name, model in {
        "static": _windows(guided),
        "without the frame before": _windows(guided, causal_window_fix=False),
        "first frame in each": _windows(guided, latent_retain_index_list="0"),
        "strides": _windows(guided, context_schedule="standard_uniform", context_stride=2),
        "a loop": _windows(guided, context_schedule="looped_uniform", closed_loop=True, causal_window_fix=False),
        "batched": _windows(guided, context_schedule="batched"),
        "longer than the batch": _windows(guided, FRAMES + 1),
        "in tiles": _windows(tile_model(guided, 64, 16)),
        "in parts": _windows(tile_model(guided, frames=5)),
    }.items():
        found = seen(nano, model, image, noise)
        results[name] = [found.off, [p[0] for p in found.places]]
    return results


def check_windows_over_height(_out: Path) -> Any:
    """Of one latent: core's own windows over height take no more."""
    nano = Averages()
    image, noise = scene.pictures(1), scene.noise()
    guided = nano.guided(image)
    results: dict[str, Any] = {}
    for name, model in {
        "height": _windows(guided, 8, 3, dim=2),
        "width": _windows(guided, 8, 3, dim=3),
        "width, without the position before": _windows(guided, 8, 3, dim=3, causal_window_fix=False),
    }.items():
        found = seen(nano, model, image, noise)
        results[name] = [found.off, sorted(set(found.places))]
    results["strides"] = raised(
        lambda: nano.sample(
            _windows(guided, 4, 1, dim=2, context_schedule="standard_uniform", context_stride=4), noise, 1
        )
    )
    return results


def check_windows_of_one_picture(_out: Path) -> Any:
    """One picture for all latents: with any windows, and the same as one copy for each."""
    nano, noise = scene.Nano(), scene.noise(FRAMES, HEIGHT, WIDTH)
    image = scene.pictures(1, 1, HEIGHT, WIDTH)
    one = nano.sample(_windows(nano.guided(image)), noise, 2)
    each = nano.sample(_windows(nano.guided(image.expand(FRAMES, -1, -1, -1))), noise, 2)
    return {"difference": scene.difference(one, each), "finite": bool(torch.isfinite(one).all())}
