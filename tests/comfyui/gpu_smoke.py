"""The nodes on a GPU, in ComfyUI's process as ``main.py`` sets it up, dynamic VRAM included; run by hand.

    COMFYUI/.venv/bin/python tests/comfyui/gpu_smoke.py --comfy COMFYUI [--files DIR] [-- --disable-dynamic-vram]

Loads, samples, interrupts, unloads, samples again and another model, for every weight dtype; with ``--files`` (see
``tests/support/make_full_size.py``) also the full-size UNet at 1024 x 1024. What follows ``--`` goes to ComfyUI;
``-- --cpu`` tries the script itself where there is no GPU. Prints one JSON object a line, exits 1 if a line is not ok.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run every step; later ones run though earlier ones failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--comfy", type=Path, required=True)
    parser.add_argument("--files", type=Path, help="folder with FaithDiff.bin, converted, and pgp-guidance.safetensors")
    parser.add_argument("rest", nargs="*", help="options of ComfyUI, after --")
    options = parser.parse_args()
    _start(options.comfy.resolve(), options.rest)
    failed = 0
    for name, step in _steps(options.files).items():
        started = time.perf_counter()
        try:
            line = {"ok": True, **(step() or {})}
        except Exception:
            line = {"ok": False, "error": traceback.format_exc()}
            failed += 1
        print(json.dumps({"step": name, "seconds": round(time.perf_counter() - started, 2), **line}), flush=True)
    return 1 if failed else 0


def _start(comfy: Path, rest: list[str]) -> None:
    """ComfyUI's own start, less its server."""
    from driver import _import_as

    sys.path[0] = str(comfy)
    folder = tempfile.mkdtemp()
    sys.argv = ["main.py", "--base-directory", folder, "--disable-all-custom-nodes", *rest]
    import main as comfy_main  # noqa: F401  (its import sets up devices and dynamic VRAM)

    entry = _import_as("pgp_pack", PACK)

    async def load() -> None:
        extension = await entry.comfy_entrypoint()
        await extension.on_load()

    asyncio.run(load())
    _import_as("pgp_checks", Path(__file__).with_name("checks"))


def _steps(files: Path | None) -> dict[str, Callable[[], Any]]:
    import comfy.model_management as mm
    import comfy.model_patcher
    import torch
    from pgp_checks import scene
    from pgp_pack import pgp_core  # noqa: F401
    from pgp_pack.nodes import comfy_backbone as backbone
    from pgp_pack.pgp_core.restorers.nano import model as nano_files
    from pgp_pack.pgp_core.unet.plan import load_plan

    device = mm.get_torch_device()
    gpu = device.type == "cuda"

    def setup() -> dict[str, Any]:
        return {
            "device": str(device),
            "name": torch.cuda.get_device_name(device) if gpu else "CPU",
            "torch": torch.__version__,
            "patcher": comfy.model_patcher.CoreModelPatcher.__name__,
        }

    def finite(x: torch.Tensor) -> dict[str, Any]:
        assert bool(x.isfinite().all()), "the latent is not finite"
        return {"std": round(float(x.float().std()), 4)}

    def nano_run(dtype: str) -> dict[str, Any]:
        nano = scene.Nano()
        if dtype != "default":
            options = backbone.WEIGHT_DTYPES[dtype]
            nano.model = backbone.load_unet(str(nano_files.FOLDER / nano_files.UNET_FILE), options)
        with torch.inference_mode():
            return finite(nano.sample(nano.guided(scene.pictures(1)), scene.noise()))

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
            expected = scene.Nano()
            a = nano.sample(guided, scene.noise())
            b = expected.sample(expected.guided(scene.pictures(1)), scene.noise())
        assert scene.difference(a, b) < 1e-4, scene.difference(a, b)
        return finite(a)

    def unload() -> dict[str, Any]:
        before = mm.get_free_memory(device)
        mm.unload_all_models()
        mm.soft_empty_cache()
        return {"freed": mm.get_free_memory(device) - before, "loaded": len(mm.current_loaded_models)}

    def against_cpu() -> dict[str, Any]:
        nano = scene.Nano()
        patch = scene.patch_of(nano.guided(scene.pictures(1)))
        h = torch.randn(1, 64, 9, 7, generator=torch.Generator().manual_seed(0))
        options = {"block": ("input", 3), "cond_or_uncond": [0], "sigmas": torch.ones(1)}
        with torch.inference_mode():
            there = patch(h.to(device), options).cpu()
            guidance = nano.patch.model.to("cpu")
            here = guidance.fuse(1, h, guidance.features(patch.lq.cpu())[1])
        return {"difference": scene.difference(there, here)}

    steps: dict[str, Callable[[], Any]] = {"setup": setup}
    for dtype in backbone.WEIGHT_DTYPES:
        steps[f"nano {dtype}"] = lambda dtype=dtype: nano_run(dtype)
    steps |= {"interrupt": interrupt, "unload": unload, "nano after unloading": lambda: nano_run("default")}
    steps["PEAM against the CPU"] = against_cpu
    if files is not None:
        for name, plan, dtype in (
            ("full bf16", None, "bf16"),
            ("pgp-sdxl bf16", "pgp-sdxl", "bf16"),
            ("pgp-sdxl fp8", "pgp-sdxl", "fp8_e4m3fn"),
        ):
            chosen = load_plan(plan) if plan else None
            steps[name] = lambda chosen=chosen, dtype=dtype: _full_size(files, chosen, dtype)
    return steps


def _full_size(files: Path, plan: Any, dtype: str, side: int = 1024, steps: int = 20) -> dict[str, Any]:
    """20 steps with CFG at 1024 x 1024, guided by FaithDiff's alignment and a PEAM."""
    import comfy.model_management as mm
    import comfy.sample
    import torch
    from pgp_pack.nodes import comfy_backbone as backbone

    device = mm.get_torch_device()
    mm.unload_all_models()
    model = backbone.load_unet(
        str(files / "faithdiff-unet.safetensors"), {**backbone.WEIGHT_DTYPES[dtype], "plan": plan}
    )
    guidance = backbone.load_guidance(str(files / "pgp-guidance.safetensors"))
    g = torch.Generator().manual_seed(0)
    sizes = {"height": side, "width": side, "crop_h": 0, "crop_w": 0, "target_height": side, "target_width": side}
    conds = [
        [[torch.randn(1, 77, 2048, generator=g), {"pooled_output": torch.randn(1, 1280, generator=g), **sizes}]]
        for _ in range(2)
    ]
    guided = backbone.apply_guidance(model, guidance, torch.rand(1, side, side, 3, generator=g), 1.0, 0.0, 1.0)
    start = comfy.sample.prepare_noise(torch.zeros(1, 4, side // 8, side // 8), 0)
    times: list[float] = []

    def note(*_: Any) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with torch.inference_mode():
        # fmt: off
        latent = comfy.sample.sample(
            guided, start, steps, 5.0, "euler", "ddim_uniform", *conds, torch.zeros_like(start), denoise=1.0, seed=0,
            callback=note, disable_pbar=True,
        )
        # fmt: on
    assert bool(latent.isfinite().all()), "the latent is not finite"
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return {"seconds_per_step": round((times[-1] - times[0]) / (len(times) - 1), 4), "peak_memory_bytes": peak}


if __name__ == "__main__":
    sys.exit(main())
