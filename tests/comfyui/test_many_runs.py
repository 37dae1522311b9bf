"""Runs in a row in one ComfyUI: memory does not grow.

12 runs by default; ``PGP_COMFY_RUNS=100 pytest -c tests/pytest.ini tests/comfyui/test_many_runs.py`` makes 100.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .comfy_server import Server

RUNS = int(os.environ.get("PGP_COMFY_RUNS", "12"))
#: Runs after which all is loaded and every cache filled once.
FIRST = min(20, RUNS // 3)
#: Nano has 17 MiB, a canvas of these runs 0.1, its features 0.2: in 12 runs a model that stays shows, in 100 also what
#: stays of each run.
MEBIBYTES = 8


def _prompt(run: int) -> dict[str, Any]:
    """One step of a tiny picture, another one each time, so that nothing is taken from ComfyUI's cache."""
    settings = {"scale": 2.0, "steps": 1, "cfg": 0.0, "strength": 1.0, "seed": 0, "tile": 0, "color_fix": "wavelet"}
    # fmt: off
    return {
        "picture": {"class_type": "EmptyImage", "inputs": {
            "width": 16, "height": 16, "batch_size": 1, "color": 0x102030 + run}},
        "upscale": {"class_type": "PGPDiffSRUpscale", "inputs": {
            "image": ["picture", 0], "shared_noise": False, **settings}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["upscale", 0], "filename_prefix": "many"}},
    }
    # fmt: on


def _resident(server: Server) -> float:
    """MiB that ComfyUI's process has."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"--base-directory\0{server.folder}\0".encode() in (process / "cmdline").read_bytes():
                pages = int((process / "statm").read_text().split()[1])
                return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        except (OSError, ValueError):
            continue
    pytest.skip("this system does not show the memory of ComfyUI's process")


@pytest.mark.timeout(60 + 20 * RUNS)
def test_memory_does_not_grow_from_run_to_run(server: Server, measured: Callable[[str, float], None]) -> None:
    resident = []
    for run in range(RUNS):
        entry = server.run(_prompt(run))
        cached = {n for event, d in entry["status"]["messages"] if event == "execution_cached" for n in d["nodes"]}
        assert not cached
        resident.append(_resident(server))
    growth = resident[-1] - resident[FIRST - 1]
    measured(f"MiB more after run {RUNS} than after run {FIRST}:", growth)
    assert growth <= MEBIBYTES, resident
