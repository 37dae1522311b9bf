"""The pack's nodes in ComfyUI's process as its ``main.py`` sets it up, dynamic VRAM included; parts 1 and 2 start it.

    python in_comfyui.py --comfy COMFYUI --folder FOLDER --do nodes|speed [--tiny] -- [ComfyUI's options]

Prints one line ``PGP-ROW {json}`` a row, beside what ComfyUI says. For ``speed``, FOLDER holds ``unet.safetensors`` and
``guidance.safetensors``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARK = "PGP-ROW "

Step = Callable[[], "dict[str, Any] | None"]


def main() -> int:
    """Run every step; later ones run though earlier ones failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--comfy", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--do", choices=("nodes", "speed"), required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("rest", nargs="*", help="options of ComfyUI, after --")
    options = parser.parse_args()
    _start(options.comfy.resolve(), options.folder, options.rest)
    steps = _nodes() if options.do == "nodes" else _speed(options.folder, options.tiny)
    for name, step in steps:
        began = time.perf_counter()
        try:
            row: dict[str, Any] = {"state": "ok", **(step() or {})}
        except Exception as e:
            row = {"state": "failed", "error": f"{type(e).__name__}: {e}", "traceback": traceback.format_exc()}
        line = json.dumps({"row": name, **row, "took": round(time.perf_counter() - began, 2)})
        print(f"{MARK}{line}", flush=True)  # noqa: T201
    return 0


def _start(comfy: Path, folder: Path, rest: list[str]) -> None:
    """ComfyUI's own start, less its server; then the pack, as ``pgp_pack``, and what its tests' checks share."""
    # This file's folder would hide modules of ComfyUI.
    sys.path[0] = str(comfy)
    base = folder / "base"
    (base / "custom_nodes").mkdir(parents=True, exist_ok=True)
    sys.argv = ["main.py", "--base-directory", str(base), "--disable-all-custom-nodes", *rest]
    import main as comfy_main  # noqa: F401  (its import sets up devices and dynamic VRAM)

    entry = _import_as("pgp_pack", ROOT)

    async def load() -> None:
        extension = await entry.comfy_entrypoint()
        await extension.on_load()

    asyncio.run(load())
    _import_as("pgp_checks", ROOT / "tests" / "comfyui" / "checks")


def _import_as(name: str, folder: Path) -> Any:
    # Not as a package's module: ComfyUI's folder is first on the path here, and this one must not be on it.
    import importlib.util

    spec = importlib.util.spec_from_file_location("checkout", Path(__file__).with_name("checkout.py"))
    assert spec is not None and spec.loader is not None
    checkout = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checkout)
    return checkout.import_as(name, folder)


def _finite(x: Any) -> dict[str, Any]:
    assert bool(x.isfinite().all()), "the latent is not finite"
    return {"std": round(float(x.float().std()), 4)}


# -- every node's work, on the bundled model -----------------------------------------------------------------


def _nodes() -> Iterator[tuple[str, Step]]:
    import comfy.model_management as mm
    import comfy.model_patcher
    import torch
    from pgp_checks import scene
    from pgp_pack.nodes import comfy_backbone as backbone

    device = mm.get_torch_device()
    unets = list((ROOT / "pgp_core" / "assets" / "nano").glob("*unet.safetensors"))

    def setup() -> dict[str, Any]:
        return {
            "device": str(device),
            "vram": mm.vram_state.name,
            "patcher": comfy.model_patcher.CoreModelPatcher.__name__,
        }

    def sampled(dtype: str) -> Any:
        nano = scene.Nano()
        if dtype != "default":
            nano.model = backbone.load_unet(str(unets[0]), backbone.WEIGHT_DTYPES[dtype])
        with torch.inference_mode():
            return nano.sample(nano.guided(scene.pictures(1)), scene.noise())

    first: list[Any] = []

    def run(dtype: str) -> dict[str, Any]:
        latent = sampled(dtype)
        first.append(latent)
        return {**_finite(latent), "from the default": scene.difference(latent, first[0])}

    def interrupt() -> dict[str, Any]:
        nano = scene.Nano()
        guided = nano.guided(scene.pictures(1))

        def stop(step: int, *_: Any) -> None:
            if step == 1:
                mm.interrupt_current_processing()

        with torch.inference_mode():
            try:
                nano.sample(guided, scene.noise(), callback=stop)
            except mm.InterruptProcessingException:
                pass
            else:
                raise AssertionError("it was not interrupted")
            after = nano.sample(guided, scene.noise())
        fresh = sampled("default")
        assert scene.difference(after, fresh) < 1e-4, f"{scene.difference(after, fresh)} from a fresh model's"
        return _finite(after)

    def unload() -> dict[str, Any]:
        before = mm.get_free_memory(device)
        mm.unload_all_models()
        mm.soft_empty_cache()
        assert not mm.current_loaded_models, "models are still loaded"
        return {"freed_bytes": mm.get_free_memory(device) - before}

    def again() -> dict[str, Any]:
        latent = sampled("default")
        assert scene.difference(latent, first[0]) < 1e-4, f"{scene.difference(latent, first[0])} from before"
        return _finite(latent)

    def peam() -> dict[str, Any]:
        nano = scene.Nano()
        patch = scene.patch_of(nano.guided(scene.pictures(1)))
        h = torch.randn(1, 64, 9, 7, generator=torch.Generator().manual_seed(0))
        options = {"block": ("input", 3), "cond_or_uncond": [0], "sigmas": torch.ones(1)}
        with torch.inference_mode():
            there = patch(h.to(device), options).cpu()
            guidance = nano.patch.model.to("cpu")
            here = guidance.fuse(1, h, guidance.features(patch.lq.cpu())[1])
        apart = scene.difference(there, here)
        # Convolutions may round to TF32 there, ten bits.
        assert apart <= 2**-7 * float(here.abs().max()), f"{apart} apart"
        return {"difference": apart}

    yield "set up", setup
    for dtype in backbone.WEIGHT_DTYPES:
        yield f"nano, {dtype}", lambda dtype=dtype: run(dtype)
    yield "interrupted", interrupt
    yield "unloaded", unload
    yield "nano after unloading", again
    yield "PEAM against the CPU", peam


# -- seconds a step ------------------------------------------------------------------------------------------


def _speed(folder: Path, tiny: bool) -> Iterator[tuple[str, Step]]:
    """Full SDXL and PGP-DiffSR at 1024 x 1024 with CFG, 16 and 8 bits; nothing is compared across rows that failed."""
    full: list[float] = []

    def timed(plan: str | None, dtype: str) -> dict[str, Any]:
        found = _steps(folder, plan, dtype, tiny)
        if plan is None:
            full.append(found["seconds_per_step"])
        ratio = {"ratio_to_full": found["seconds_per_step"] / full[0]} if full else {}
        return {**found, **ratio}

    for name, plan, dtype in (
        ("full bf16", None, "bf16"),
        ("pgp-sdxl bf16", "pgp-sdxl", "bf16"),
        ("pgp-sdxl fp16", "pgp-sdxl", "fp16"),
        ("pgp-sdxl fp8", "pgp-sdxl", "fp8_e4m3fn"),
        ("pgp-sdxl fp8, fast", "pgp-sdxl", "fp8_e4m3fn_fast"),
    ):
        yield name, lambda plan=plan, dtype=dtype: timed(plan, dtype)


def _steps(folder: Path, plan: str | None, dtype: str, tiny: bool) -> dict[str, Any]:
    """Euler's steps with CFG, guided by a PEAM."""
    import comfy.model_management as mm
    import comfy.sample
    import torch
    from pgp_pack.nodes import comfy_backbone as backbone
    from pgp_pack.pgp_core.unet.plan import load_plan

    device, cuda = mm.get_torch_device(), mm.get_torch_device().type == "cuda"
    side, steps = (64, 4) if tiny else (1024, 12)
    mm.unload_all_models()
    mm.soft_empty_cache()
    options = {**backbone.WEIGHT_DTYPES[dtype], **({"plan": load_plan(plan)} if plan else {})}
    model = backbone.load_unet(str(folder / "unet.safetensors"), options)
    guidance = backbone.load_guidance(str(folder / "guidance.safetensors"))
    widths = model.model.model_config.unet_config
    context, pooled = widths["context_dim"], widths["adm_in_channels"] - 6 * 256
    g = torch.Generator().manual_seed(0)
    sizes = {"height": side, "width": side, "crop_h": 0, "crop_w": 0, "target_height": side, "target_width": side}
    extra = {"pooled_output": torch.randn(1, pooled, generator=g), **sizes}
    conds = [[[torch.randn(1, 77, context, generator=g), dict(extra)]] for _ in range(2)]
    guided = backbone.apply_guidance(model, guidance, torch.rand(1, side, side, 3, generator=g), 1.0, 0.0, 1.0)
    start = comfy.sample.prepare_noise(torch.zeros(1, 4, side // 8, side // 8), 0)
    times: list[float] = []

    used = 0

    def note(*_: Any) -> None:
        nonlocal used
        if cuda:
            torch.cuda.synchronize()
            free, total = torch.cuda.mem_get_info()
            used = max(used, total - free)
        times.append(time.perf_counter())

    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        # fmt: off
        latent = comfy.sample.sample(
            guided, start, steps, 5.0, "euler", "ddim_uniform", *conds, torch.zeros_like(start), denoise=1.0, seed=0,
            callback=note, disable_pbar=True,
        )
        # fmt: on
    found = _finite(latent)
    # The first step loads, and tries algorithms.
    between = sorted(b - a for a, b in itertools.pairwise(times[1:]))
    return {
        **found,
        "seconds_per_step": between[len(between) // 2],
        "seconds_min": between[0],
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if cuda else 0,
        # Dynamic VRAM keeps weights outside of PyTorch's allocator.
        "device_used_bytes": used,
        "held_as": sorted({str(p.dtype).removeprefix("torch.") for p in model.model.diffusion_model.parameters()}),
        "computed_in": str(model.model.manual_cast_dtype or model.model.get_dtype()).removeprefix("torch."),
        "device": str(device),
    }


if __name__ == "__main__":
    sys.exit(main())
