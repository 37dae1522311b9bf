"""Part 3: one step end to end, from a canvas to a picture on the CPU, VAE included, a row for each family and size.

Multiply-accumulates are PyTorch's own count of one whole call (convolutions, matrix products, attention), halved:
Fourier transforms, norms and activations count nothing.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..results import FailedError, Results
from ..setting import Setting, picture
from .families import FAMILIES, Made, Make

SIZES, TINY_SIZES = (512, 1024), (64, 128)
#: What users get by default on a GPU is fp16; SDXL's authors' too.
DTYPES, TINY_DTYPES = (torch.float16, torch.bfloat16), (torch.float32,)
REPEATS = 5


def run(results: Results, setting: Setting) -> None:
    """All rows; a model that cannot be made loses its own rows only."""
    for dtype in TINY_DTYPES if setting.tiny else DTYPES:
        for name, make in FAMILIES.items():
            label = f"{name}, {str(dtype).removeprefix('torch.')}"
            made: list[Made] = []
            results.row(f"{label}: made", partial(_make, make, setting, dtype, made))
            for side in (TINY_SIZES if setting.tiny else SIZES) if made else ():
                results.row(f"{label}: {side}", partial(measure, made[0], setting, side))
            made.clear()
            gc.collect()
            if setting.cuda:
                torch.cuda.empty_cache()


def _make(make: Make, setting: Setting, dtype: torch.dtype, made: list[Made]) -> dict[str, Any]:
    made.append(make(torch.device(setting.device), dtype, setting.tiny))
    parts = {name: sum(p.numel() for p in module.parameters()) for name, module in made[0].modules.items()}
    return {"params": sum(parts.values()), "params_of": parts}


def measure(made: Made, setting: Setting, side: int) -> dict[str, Any]:
    """One size of one model."""
    from large_pictures.plain import lines_said

    canvas = picture(side, side)

    def call() -> torch.Tensor:
        restored: torch.Tensor = made.restorer.restore(canvas)
        return restored

    counter = FlopCounterMode(display=False)
    # It warms up, too. Random weights may overflow fp16, which is then computed twice: that is said.
    with lines_said() as said, counter:
        result = call()
    first = setting.timed(call)["median"]
    seconds = setting.timed(call, 1 if setting.tiny else REPEATS)
    found = {
        "first_seconds": first,
        "seconds": seconds["median"],
        "seconds_min": seconds["min"],
        "seconds_max": seconds["max"],
        "macs": counter.get_total_flops() // 2,
        "peak_memory_bytes": setting.peak(call),
        "said": said,
        "size": list(result.shape[-2:]),
    }
    if result.shape != canvas.shape or not bool(result.isfinite().all()):
        raise FailedError("the result is not a finite picture of the canvas's size", found)
    return found
