"""Run by ``test_loading_memory.py``: ``python measure_loading.py FOLDER WHAT:FILE...`` does each of these in turn.

Prints a line of JSON for each: ``file``, ``what``, the file's ``size``, ``kept`` bytes of the tensors that were loaded,
``peak`` and ``mapped`` as in :mod:`memory`. Everything is imported once. What is measured runs in a fork, since
allocators keep what they had; so does writing the files.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import memory
import torch
from faithdiff_file import NARROW, WIDE, write_constant

from pgp_core.files.weights import open_weights
from pgp_core.guidance.convert import convert
from pgp_core.unet.inspect import inspect_unet
from pgp_core.unet.loading import load_unet
from pgp_core.unet.plan import load_plan


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


ACTIONS: dict[str, Callable[[Path, Path], tuple[int, Any]]] = {"load": load, "convert": converted}


def measure(what: str, path: Path, folder: Path) -> None:
    # The UNet lives on, so that its pages can be counted.
    (kept, _unet), taken = memory.measure(lambda: ACTIONS[what](path, folder), path)
    found = {"kept": kept, "peak": taken.peak, "mapped": taken.mapped, "size": path.stat().st_size}
    print(json.dumps({"file": path.name, "what": what, **found}), flush=True)


def forked(action: Callable[[], None]) -> None:
    """Run in a copy of this process; what fails there fails here."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    if os.waitpid(child, 0)[1]:
        sys.exit("a measurement failed")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder, cases = Path(sys.argv[1]), [case.split(":") for case in sys.argv[2:]]
    out = folder / "out"
    # Once with a small file: what is imported on the way is not the file's.
    small = folder / "small.safetensors"
    write_constant(small, NARROW)
    for action in ACTIONS.values():
        action(small, out)
    for name in dict.fromkeys(name for _, name in cases):
        path = folder / name
        forked(lambda path=path: write_constant(path, WIDE))
        for what in (w for w, n in cases if n == name):
            forked(lambda what=what, path=path: measure(what, path, out))
        path.unlink()
        shutil.rmtree(out, ignore_errors=True)
