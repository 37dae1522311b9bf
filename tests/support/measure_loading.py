"""Run by ``test_loading_memory.py`` in a process of its own: ``python measure_loading.py WHAT FILE WARM-UP FOLDER``.

Prints JSON: ``kept`` bytes of the tensors that were loaded, ``peak`` and ``mapped`` as in :mod:`memory`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import memory
import torch

from pgp_core.convert import convert
from pgp_core.plan import load_plan
from pgp_core.unet_diffusers import load_unet
from pgp_core.unet_file import inspect_unet
from pgp_core.weights_file import open_weights


def load(path: Path, _folder: Path) -> tuple[int, Any]:
    """With a plan, on diffusers; every weight is then read once, as a run would. Bytes, and the UNet."""
    with open_weights(path) as file:
        info = inspect_unet(file, load_plan("pgp-sdxl"))
        unet: Any = load_unet(info.shape, info.plan, {info.ldm(k): file.read(k) for k in info.keys}, file.name)
    return touch(unet), unet


def touch(module: torch.nn.Module) -> int:
    """Read every weight; how many bytes they are."""
    total = 0
    for weight in module.state_dict().values():
        # One value a page, without a copy.
        float(weight.view(-1)[:: 4096 // weight.element_size()].float().sum())
        total += weight.nbytes
    return total


def converted(path: Path, folder: Path) -> tuple[int, Any]:
    """The bytes that the conversion reads."""
    return path.stat().st_size, convert(path, folder)


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, big, small, folder = sys.argv[1], *map(Path, sys.argv[2:])
    action = {"load": load, "convert": converted}[what]
    # Once with a small file: what is imported on the way is not the file's.
    action(small, folder)
    # The UNet lives on, so that its pages can be counted.
    (kept, _unet), taken = memory.measure(lambda: action(big, folder), big)
    print(json.dumps({"kept": kept, "peak": taken.peak, "mapped": taken.mapped}))
