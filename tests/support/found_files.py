"""A narrow SDXL UNet in the layouts in which users have it; the plain one is the oracle."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import faithdiff_file
import torch
from safetensors.torch import save_file

from pgp_core.files.weights import FoundWeights, WeightsFile, together
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.topology import KeyMap

Weights = dict[str, torch.Tensor]


@lru_cache(1)
def unet() -> Weights:
    """In diffusers' names, float16."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return {k: v.half() for k, v in build_unet(faithdiff_file.NARROW).state_dict().items()}


def ldm(weights: Weights | None = None) -> Weights:
    """In LDM's names."""
    names = KeyMap()
    return {names.to_ldm(k): v for k, v in (unet() if weights is None else weights).items()}


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + k: v for k, v in weights.items()}


def compiled(weights: Weights) -> Weights:
    """As torch.compile names blocks that were compiled one by one."""
    return {k.replace(".transformer_blocks.1.", ".transformer_blocks.1._orig_mod.", 1): v for k, v in weights.items()}


def in_memory(weights: Weights, metadata: dict[str, str] | None = None, **more: Any) -> WeightsFile:
    """As :func:`pgp_core.files.weights.open_weights` gives a file with these weights."""
    floating = {k: v.dtype for k, v in weights.items() if v.dtype.is_floating_point}
    shapes = {k: tuple(v.shape) for k, v in weights.items()}
    file = WeightsFile("found.bin", shapes, frozenset(floating), weights.__getitem__, metadata or {}, dtypes=floating)
    return together([file], FoundWeights("found.bin", (Path("found.bin"),), **more))


def scaled(weights: Weights, style: str, per_output: bool = False) -> Weights:
    """fp8 with a factor for each layer of two dimensions, as ComfyUI's scripts make it; weights in LDM's names.

    Args:
        style: ``"old"`` (scale_weight, scaled_fp8), ``"new"`` (weight_scale, comfy_quant) or ``"plain"``
            (weight_scale alone).
    """
    out: Weights = {}
    for key, value in weights.items():
        if value.dim() != 2 or not key.endswith(".weight") or "transformer_blocks" not in key:
            out[key] = value
            continue
        layer, wide = key.removesuffix(".weight"), value.float()
        largest = wide.abs().amax(1) if per_output else wide.abs().max()
        scale = (largest / 448).clamp(min=1e-12)
        out[key] = (wide / (scale[:, None] if per_output else scale)).to(torch.float8_e4m3fn)
        out[layer + (".scale_weight" if style == "old" else ".weight_scale")] = scale
        if style == "old":
            out[layer + ".scale_input"] = torch.tensor(1.0)
        if style == "new":
            said = json.dumps({"format": "float8_e4m3fn"}).encode()
            out[layer + ".comfy_quant"] = torch.tensor(list(said), dtype=torch.uint8)
    if style == "old":
        out["scaled_fp8"] = torch.zeros(2, dtype=torch.float8_e4m3fn)
    return out


def write_shards(folder: Path, stem: str, weights: Weights, count: int = 3, suffix: str = ".safetensors") -> Path:
    """Shards and their index, as diffusers saves them; the index's path."""
    folder.mkdir(parents=True, exist_ok=True)
    keys, holder = list(weights), {}
    for i in range(count):
        name = f"{stem}-{i + 1:05}-of-{count:05}{suffix}"
        part = {k: weights[k].contiguous() for k in keys[i::count]}
        holder |= dict.fromkeys(part, name)
        write: Callable[..., Any] = save_file if suffix == ".safetensors" else torch.save
        write(part, folder / name)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": holder}))
    return index
