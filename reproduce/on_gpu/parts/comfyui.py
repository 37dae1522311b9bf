"""What parts 1 and 2 do in ComfyUI: its process, and the rows that it prints."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..checkout import ROOT, import_as
from ..results import Results
from ..setting import Setting
from .families import sdxl_shape

SCRIPT = Path(__file__).resolve().parents[1] / "in_comfyui.py"
#: Begins a line that holds a row.
MARK = "PGP-ROW "

#: Ways to hold models in memory. Dynamic VRAM is what ComfyUI does by itself on NVIDIA.
WAYS = {"dynamic VRAM": (), "no dynamic VRAM": ("--disable-dynamic-vram",), "no VRAM": ("--novram",)}


def nodes(results: Results, setting: Setting, way: str) -> None:
    """Load, sample, interrupt, unload, sample again, for every weight dtype."""
    _rows(results, setting, f"ComfyUI, {way}", "nodes", WAYS[way])


def speed(results: Results, setting: Setting) -> None:
    """Seconds a step of full SDXL and of the pruned, with weights of 16 and of 8 bits."""
    folder = _folder(setting, "speed")
    if setting.comfyui is None or results.row("ComfyUI: files", lambda: _write(folder, setting.tiny)):
        _rows(results, setting, "ComfyUI", "speed", ())
    # 5 GB, which the parts after this one may want.
    shutil.rmtree(folder)


def _write(folder: Path, tiny: bool) -> dict[str, Any]:
    """A UNet and guidance with random weights, in the layout that users have."""
    from safetensors.torch import save_file

    from pgp_core.bench.rows import make_weights
    from pgp_core.guidance.fresh import fresh_spec
    from pgp_core.guidance.module import KEY_PREFIX, METADATA_KEY, Guidance
    from pgp_core.unet.topology import KeyMap

    shape = sdxl_shape(tiny)
    names = KeyMap()
    weights = {names.to_ldm(k): v.contiguous() for k, v in make_weights(shape, "cpu", torch.bfloat16).items()}
    save_file(weights, folder / "unet.safetensors")
    spec = replace(fresh_spec(shape.channels[0]), trained=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        guidance = Guidance.fresh(spec)
    tensors = {KEY_PREFIX + k: v for k, v in guidance.state_dict().items()}
    save_file(tensors, folder / "guidance.safetensors", {METADATA_KEY: json.dumps(spec.to_json())})
    return {"bytes": sum(f.stat().st_size for f in folder.glob("*.safetensors"))}


def _folder(setting: Setting, name: str) -> Path:
    folder = setting.temporary / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def python(comfyui: Path) -> Path:
    """The one that has ComfyUI's packages: ComfyUI's own where it has one, else this one."""
    import_as("comfyui_tests", ROOT / "tests" / "comfyui")
    from comfyui_tests.locate import locate

    return Path(locate(environ={"COMFYUI_PATH": str(comfyui)}).python)


def _rows(results: Results, setting: Setting, name: str, what: str, flags: Sequence[str]) -> None:
    """Run ``in_comfyui.py`` and keep its rows as they come."""
    if setting.comfyui is None:
        results.put(name, {"state": "skipped", "reason": "no --comfyui"}, 0)
        return
    # Each process has its own, but for the files that were written for it.
    folder = _folder(setting, what if what == "speed" else f"{what}{''.join(flags)}")
    if not setting.cuda and flags:
        # ComfyUI takes one word on where models are.
        flags = [f for f in flags if f != "--novram"]
    command = [str(python(setting.comfyui)), str(SCRIPT), "--comfy", str(setting.comfyui), "--folder", str(folder)]
    command += ["--do", what, *(["--tiny"] if setting.tiny else []), "--", *([] if setting.cuda else ["--cpu"]), *flags]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    last: list[str] = []
    for text in process.stdout:
        if text.startswith(MARK):
            row = json.loads(text[len(MARK) :])
            results.put(f"{name}: {row.pop('row')}", row, row.pop("took"))
        else:
            print(text, end="", flush=True)  # noqa: T201
            last = [*last[-20:], text]
    if process.wait():
        error = f"its process ended with {process.returncode}: {''.join(last)[-1500:]}"
        results.put(name, {"state": "failed", "error": error}, 0)
