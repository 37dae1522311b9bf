"""ComfyUI's own flags: the same pictures, or within the rounding that a flag asks for.

A few by default, in one ComfyUI; ``PGP_COMFY_FLAGS=1 pytest -c tests/pytest.ini tests/comfyui/test_flags.py`` starts
one for each. ``--lowvram``, ``--novram`` and ``--highvram`` exclude ``--cpu`` in core: see ``checks/tiling/memory.py``
for what they do to a MODEL.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from . import pictures
from .comfy_server import Server, running
from .locate import PACK, Comfy
from .ui_to_prompt import to_prompt

#: Flags that change where things lie and how long they are kept, and by how much a picture of 8 bits may differ.
SAME = 0.0
#: Attention in another order of summing: one step of 8 bits.
SUMS = 1.001 / 255
#: Half precision has 2**-11 of a value, several hundred operations deep; 8 bits have 2**-4.
HALF, EIGHT = 8 / 255, 64 / 255
FLAGS = {
    "--cache-none": SAME,
    "--cache-classic": SAME,
    "--cache-lru 3": SAME,
    "--cache-ram 4": SAME,
    "--high-ram": SAME,
    "--fast": SAME,
    "--cpu-vae": SAME,
    "--disable-metadata": SAME,
    "--disable-smart-memory": SAME,
    "--disable-dynamic-vram": SAME,
    "--force-channels-last": SUMS,
    "--force-fp32": SAME,
    "--use-split-cross-attention": SUMS,
    "--use-quad-cross-attention": SUMS,
    "--use-pytorch-cross-attention": SUMS,
    "--deterministic": SAME,
    "--force-fp16": HALF,
    "--fp16-unet": HALF,
    "--bf16-unet": 8 * HALF,
    "--fp8_e4m3fn-unet": EIGHT,
    "--fp8_e5m2-unet": EIGHT,
    "--bf16-vae": 8 * HALF,
}
ALL = "PGP_COMFY_FLAGS" in os.environ
#: Those that change most of how ComfyUI runs a graph, together.
TOGETHER = {"--cache-none --fast --disable-smart-memory --disable-metadata": SAME}
HEIGHT, WIDTH = 20, 25


def _tiled() -> dict[str, Any]:
    # fmt: off
    return {
        "nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": "flags.png"}},
        "large": {"class_type": "ImageScaleBy", "inputs": {
            "image": ["picture", 0], "upscale_method": "lanczos", "scale_by": 3.0}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["large", 0], "vae": ["nano", 2]}},
        "apply": {"class_type": "PGPDiffSRApply", "inputs": {
            "model": ["nano", 0], "model_patch": ["nano", 1], "image": ["large", 0], "strength": 1.0,
            "start_percent": 0.0, "end_percent": 1.0}},
        "tiling": {"class_type": "PGPDiffSRTiling", "inputs": {
            "model": ["apply", 0], "tile": 32, "overlap": 16, "blend": "cosine", "phase": "canvas", "frames": 0}},
        "sample": {"class_type": "KSampler", "inputs": {
            "model": ["tiling", 0], "positive": ["nano", 3], "negative": ["nano", 4], "latent_image": ["latent", 0],
            "seed": 1, "steps": 2, "cfg": 1.5, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["nano", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "flags"}},
    }
    # fmt: on


def _results(server: Server, folder: Path) -> list[torch.Tensor]:
    """One step as shipped and a few in tiles, each twice; the second time ComfyUI may take from its cache."""
    server.upload(pictures.save(pictures.smooth(3, HEIGHT, WIDTH), folder / "flags.png"), "flags.png")
    shipped = json.loads((PACK / "workflows" / "upscale-nano-s1.json").read_text(encoding="utf-8"))
    one_step = to_prompt(shipped, server.get_json("/object_info"))
    for node in one_step.values():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = "flags.png"
    results = []
    for prompt in (one_step, _tiled(), one_step, _tiled()):
        saved = [o["images"] for o in server.run(prompt)["outputs"].values() if "images" in o]
        if saved:
            results.append(pictures.read(server.picture(saved[-1][-1])))
    return results


@pytest.fixture(scope="module")
def plain(server: Server, tmp_path_factory: pytest.TempPathFactory) -> list[torch.Tensor]:
    return _results(server, tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("flags", FLAGS if ALL else TOGETHER)
def test_comfyui_s_flags_do_not_change_the_picture(
    flags: str, plain: list[torch.Tensor], comfy: Comfy, tmp_path: Path, measured: Callable[[str, float], None]
) -> None:
    with running(comfy, PACK, tmp_path / "base", flags.split()) as server:
        results = _results(server, tmp_path)
        log = server.log_tail(10**6)
    assert "Traceback" not in log
    assert len(results) >= 2
    difference = max(float((r - plain[i % 2]).abs().max()) for i, r in enumerate(results))
    measured(flags, difference)
    assert difference <= {**FLAGS, **TOGETHER}[flags]
