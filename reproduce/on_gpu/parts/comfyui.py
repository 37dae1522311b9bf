"""What parts 1 and 2 do in ComfyUI: its process, and the rows that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..results import Results
from ..setting import Setting

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
    _rows(results, setting, "ComfyUI", "speed", ())


def _rows(results: Results, setting: Setting, name: str, what: str, flags: Sequence[str]) -> None:
    """Run ``in_comfyui.py`` and keep its rows as they come."""
    if setting.comfyui is None:
        results.put(name, {"state": "skipped", "reason": "no --comfyui"}, 0)
        return
    folder = setting.temporary / f"{what}-{len(flags) and flags[0].strip('-')}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(SCRIPT), "--comfy", str(setting.comfyui), "--folder", str(folder), "--do", what]
    command += [*(["--tiny"] if setting.tiny else []), "--", *([] if setting.cuda else ["--cpu"]), *flags]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    last: list[str] = []
    for text in process.stdout:
        if text.startswith(MARK):
            row = json.loads(text[len(MARK) :])
            results.put(f"{name}: {row.pop('row')}", row, row.pop("seconds"))
        else:
            print(text, end="", flush=True)  # noqa: T201
            last = [*last[-20:], text]
    if process.wait():
        error = f"its process ended with {process.returncode}: {''.join(last)[-1500:]}"
        results.put(name, {"state": "failed", "error": error}, 0)
