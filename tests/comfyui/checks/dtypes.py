"""Half-precision weights, and pictures without any structure."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch as replace

import comfy.model_management
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.restorers.nano import model as nano_files

from . import scene

SIZE = 8


def check_dtypes(_out: Path) -> Any:
    """Keys are ``weight dtype / compute dtype / picture``; values are finite or not, and the largest value."""
    path = str(nano_files.FOLDER / nano_files.UNET_FILE)
    results = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        computed = {"float32": None} if dtype == torch.float32 else {"float32": None, "own": _no_cast}
        for compute, cast in computed.items():
            nano = scene.Nano()
            # On the CPU core computes in float32; on a GPU it computes in the weights' own dtype.
            with replace.object(comfy.model_management, "unet_manual_cast", cast or _core_s_cast):
                nano.model = comfy_backbone.load_unet(path, {"dtype": dtype})
            stored = {str(v.dtype) for v in nano.model.model.diffusion_model.state_dict().values()}
            for name, picture in _pictures().items():
                latent = nano.sample(nano.guided(picture), scene.noise(1, SIZE, SIZE), steps=2)
                results[f"{str(dtype).removeprefix('torch.')}/{compute}/{name}"] = {
                    "stored": sorted(stored),
                    "finite": bool(latent.isfinite().all()),
                    "largest": float(latent.abs().max()),
                }
    return results


_core_s_cast = comfy.model_management.unet_manual_cast


def _no_cast(*_: Any, **__: Any) -> None:
    return None


def _pictures() -> dict[str, torch.Tensor]:
    textured = scene.pictures(1, height=SIZE, width=SIZE)
    flat = {name: torch.full_like(textured, level) for name, level in (("grey", 0.5), ("black", 0.0), ("white", 1.0))}
    return {"textured": textured, **flat}
