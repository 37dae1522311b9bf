"""Tiles that are too much: for the memory, and for the numbers of half precision."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch as replace

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import torch
from pgp_pack.nodes import comfy_backbone
from pgp_pack.nodes.comfy_backbone import tile_model
from pgp_pack.nodes.comfy_backbone.tiling import full_precision
from pgp_pack.pgp_core.choices import PHASES
from pgp_pack.pgp_core.restorers.nano import model as nano_files

from .. import dtypes, scene
from ..raised import raised
from .setting import OVERLAP, TILE, Wrapper, neighbours, setting, wrapped


def check_tiling_out_of_memory(_out: Path) -> Any:
    """A model that does not fit above 40 positions; the canvas has 72."""
    nano, noise = scene.Nano(), scene.noise(1, 72, 52)
    failed: list[int] = []

    def small_only(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        if args["input"].shape[-2] > 40:
            failed.append(args["input"].shape[-2])
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return neighbours(apply, args)

    plain = wrapped(nano.model, small_only)
    results: dict[str, Any] = {}
    for tile in (0, 256):
        model = tile_model(plain, tile, OVERLAP)
        with scene.Messages() as messages:
            latent = nano.sample(model, noise)
        expected = nano.sample(tile_model(plain, {0: 144, 256: 128}[tile], OVERLAP), noise)
        first = failed.copy()
        failed.clear()
        again = nano.sample(model, noise)
        results[str(tile)] = {
            "same as that size": torch.equal(latent, expected),
            "failed": first,
            "failed again": failed.copy(),
            "the same again": torch.equal(again, latent),
            "lines": [m for m in messages.lines if "out of memory" in m],
        }
    nano.sample(tile_model(plain, 0, OVERLAP), noise, steps=1)
    results["a fresh one begins large"] = failed.copy()

    def never(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    try:
        nano.sample(tile_model(wrapped(nano.model, never), 0, OVERLAP), noise, steps=1)
    except torch.OutOfMemoryError as e:
        results["never fits"] = str(e)
    # The estimate alone: memory for a quarter of the canvas.
    need = nano.model.model.memory_required([2, scene.CHANNELS, 72, 52])
    other = Wrapper(neighbours)
    with replace.object(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: need / 4):
        nano.sample(tile_model(wrapped(nano.model, other), 0, OVERLAP), noise, steps=1)
    results["estimated"] = sorted({tuple(s) for s in other.shapes})
    # Memory for anything.
    for side in (384, 512):
        other = Wrapper(neighbours)
        with replace.object(comfy.model_patcher.ModelPatcher, "get_free_memory", lambda self, device: 1e15):
            nano.sample(tile_model(wrapped(nano.model, other), 0, OVERLAP), scene.noise(1, side, side), steps=1)
        results[f"plenty, {side}"] = sorted({tuple(s[2:]) for s in other.shapes})
    return results


def check_tiling_not_finite(_out: Path) -> Any:
    results: dict[str, Any] = {}
    nano, image, noise = setting()
    for dtype in (torch.float16, torch.bfloat16):
        nano.model = _of_dtype(dtype)
        mm.load_models_gpu([nano.model])
        # What float32 means: the same as weights of half precision in a model of float32.
        base, other = nano.model.model, _of_dtype(torch.float32)
        rounded = {k: v.float() for k, v in base.diffusion_model.state_dict().items()}
        other.model.diffusion_model.load_state_dict(rounded)
        x, sigma = noise[..., :12, :12] * 3, torch.ones(1) * 3
        c = {"c_crossattn": nano.positive[0][0], "y": torch.ones(1, base.adm_channels)}
        before = _switches(base)
        with full_precision.in_float32(base):
            ours = base.apply_model(x, sigma, **c)
        results[f"{dtype}, restored"] = _switches(base) == before
        mm.load_models_gpu([other])
        results[f"{dtype}, from float32"] = scene.difference(ours, other.model.apply_model(x, sigma, **c))
    for tile, bad, phase in ((TILE, (8, 0), 0), (TILE, (8, 0), 1), (0, (0, 0), 0)):
        results[f"tile {tile}, {phase}"] = _overflown(nano, nano.guided(image), noise, tile, bad, phase)

    def never(_: Any, args: dict[str, Any]) -> torch.Tensor:
        result: torch.Tensor = args["input"] * torch.inf
        return result

    results["never"] = raised(lambda: nano.sample(tile_model(wrapped(nano.model, never)), noise, steps=1))
    damaged = noise.clone()
    damaged[0, 0, 0, 0] = torch.nan
    results["latent"] = raised(lambda: nano.sample(tile_model(nano.model), damaged, steps=1))
    return results


def check_tiling_float32_of_8_bits(_out: Path) -> Any:
    """Core's fast 8-bit layers cut their input to 448."""
    layer = comfy.ops.fp8_ops.Linear(64, 32, dtype=torch.float8_e4m3fn)
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fn)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(torch.zeros(32).to(torch.float8_e4m3fn), requires_grad=False)
    base = SimpleNamespace(manual_cast_dtype=torch.bfloat16, diffusion_model=torch.nn.Sequential(layer))
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(1)) * 1000
    own = set(vars(layer))
    with full_precision.in_float32(base):
        out = layer(x.clone())
    return {
        "difference": scene.difference(out, x @ weight.float().T),
        "size": float(out.abs().max()),
        "restored": set(vars(layer)) == own and base.manual_cast_dtype == torch.bfloat16,
    }


def _of_dtype(dtype: torch.dtype) -> Any:
    """Nano's UNet, computing in the dtype of its weights as on a GPU."""
    with replace.object(mm, "unet_manual_cast", dtypes._no_cast):
        return comfy_backbone.load_unet(str(nano_files.FOLDER / nano_files.UNET_FILE), {"dtype": dtype})


def _overflown(nano: Any, guided: Any, noise: torch.Tensor, tile: int, bad: tuple[int, int], phase: int) -> Any:
    """Two steps of a model that overflows in one tile, unless it computes in float32."""
    base, computed = guided.model, []

    def overflowing(apply: Any, args: dict[str, Any]) -> torch.Tensor:
        at, dtype = args["c"]["transformer_options"]["pgp_tile"], base.get_dtype_inference()
        computed.append(((at.y, at.x), dtype))
        out: torch.Tensor = apply(args["input"], args["timestep"], **args["c"])
        if (at.y, at.x) == bad and dtype != torch.float32:
            out[..., 3, 3] = torch.nan
        return out

    model = tile_model(wrapped(guided, overflowing), tile, OVERLAP, phase=PHASES[phase])
    with scene.Messages() as messages:
        latent = nano.sample(model, noise, steps=2)
    return {
        "finite": bool(latent.isfinite().all()),
        "in float32": [list(p) for p, d in computed if d == torch.float32],
        "lines": [m for m in messages.lines if "float32" in m and "Tiling" in m],
    }


def _switches(base: Any) -> list[Any]:
    """What layers have of their own that decides how they compute."""
    names = ("comfy_cast_weights", "comfy_force_cast_weights", "forward_comfy_cast_weights")
    return [base.manual_cast_dtype] + [
        {n: vars(m)[n] for n in names if n in vars(m)} for m in base.diffusion_model.modules()
    ]
