"""What loading a part of a file takes, by a plan; in a process of its own, since allocators keep what they had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.pgp_core.unet.plan import load_plan

from .scene import support


def check_loading(out: Path) -> Any:
    memory, files = support("memory"), out.parent / "files"
    results = {}
    for ending in ("safetensors", "bin"):
        # Once with a small file: what is imported on the way is not the file's.
        _loaded(files / f"small.{ending}")
        big = files / f"big.{ending}"
        (kept, _model), taken = memory.measure(lambda big=big: _loaded(big), big)
        results[ending] = {"kept": kept, "peak": taken.peak, "mapped": taken.mapped}
        del _model
    return results


def _loaded(path: Path) -> tuple[int, Any]:
    """Bytes of the weights of a MODEL in the file's own dtype with a plan, each read once; and the MODEL."""
    model = comfy_backbone.load_unet(str(path), {"dtype": torch.float32, "plan": load_plan("pgp-sdxl")})
    total = 0
    for weight in model.model.diffusion_model.state_dict().values():
        # One value a page, without a copy.
        float(weight.view(-1)[:: 4096 // weight.element_size()].sum())
        total += weight.nbytes
    return total, model
