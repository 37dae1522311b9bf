"""Part 2: one UNet step at 1024 x 1024 in bf16 and fp16, as it is, in ComfyUI with fp8 weights, and compiled.

Rows of a table are measured in turn in one process by ``pgp-diffsr bench unet``'s own code; a ratio is to the full UNet
of the same row's table. Weights are random.
"""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import torch

from ..results import FailedError, Results
from ..setting import Setting
from .comfyui import speed

#: Timed rounds.
REPEATS = 10
#: Most wanted first: compiling takes longer than all the rest.
COMPILED = ("fine+peam", "full", "fine", "coarse", "faithdiff")


def run(results: Results, setting: Setting) -> None:
    """All rows."""
    dtypes = (torch.bfloat16,) if setting.tiny else (torch.bfloat16, torch.float16)
    eager: dict[torch.dtype, dict[str, Any]] = {}

    def plain(dtype: torch.dtype) -> dict[str, Any]:
        eager[dtype] = _bench(setting, dtype)
        return eager[dtype]

    for dtype in dtypes:
        results.row(f"{_name(dtype)}", partial(plain, dtype))
        _free()
    speed(results, setting)
    for name in COMPILED[: 1 if setting.tiny else None]:
        results.row(f"{_name(dtypes[0])}, compiled: {name}", lambda n=name: _compiled(setting, dtypes[0], n, eager))
        _free()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _options(setting: Setting, dtype: torch.dtype) -> Any:
    from pgp_core.bench import BenchOptions
    from pgp_core.unet.known import NANO_SHAPE, SDXL_SHAPE

    size = {"latent": 8, "repeats": 1, "shape": NANO_SHAPE} if setting.tiny else {"repeats": REPEATS}
    return BenchOptions(device=setting.device, dtype=dtype, **{"latent": 128, "shape": SDXL_SHAPE, **size})


def _bench(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    from pgp_core.bench import bench_unet, injection

    if setting.tiny:
        # Five seconds are for a figure.
        injection.SECONDS = 0.1
    return bench_unet(_options(setting, dtype)).to_json()


def _compiled(setting: Setting, dtype: torch.dtype, name: str, eager: dict[torch.dtype, Any]) -> dict[str, Any]:
    """One row through ``torch.compile``, and how much faster than without in this run."""
    from pgp_core.bench.rows import Net, make_inputs, make_weights, rows_of

    if setting.tiny:
        # A CPU compiles for minutes: what is tried is the way there.
        torch._dynamo.config.disable = True
    o = _options(setting, dtype)
    device = torch.device(o.device)
    torch._dynamo.reset()
    row = next(r for r in rows_of(o.shape) if r.name == name)
    inputs = make_inputs(o.shape, o.latent, 1, device, dtype)
    net = Net(row, o.shape, make_weights(o.shape, device, dtype), inputs, o.latent, compiled=True)
    first = setting.timed(net.step)["median"]
    if not bool(net.step().isfinite().all()):
        raise FailedError("the compiled UNet's numbers are not finite", {"first_call_seconds": first})
    measured = setting.timed(net.step, o.repeats)
    found: dict[str, Any] = {
        "compiled": not setting.tiny,
        "first_call_seconds": first,
        "seconds_per_step": measured["median"],
        "seconds_min": measured["min"],
        "seconds_max": measured["max"],
        "peak_memory_bytes": setting.peak(net.step),
    }
    before = {r["name"]: r["seconds_per_step"] for r in eager.get(dtype, {}).get("rows", [])}
    if before:
        found["ratio_to_the_same_uncompiled"] = measured["median"] / before[name]
        found["ratio_to_full_uncompiled"] = measured["median"] / before["full"]
    return found
