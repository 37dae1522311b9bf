"""Part 1: what CUDA changes: half precision, transforms, memory that runs out, offloading, ComfyUI's own workflows.

Its processes of ComfyUI run beside each other where there are cores enough: nothing here is timed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ..results import FailedError, Results
from ..setting import Setting, picture
from . import comfyui, pytest_rows

#: Grey levels of 255 by which a result may be off, root mean square and largest: "clean" in docs/reproduction.md.
CLEAN = (1.0, 3.0)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
STEPS = 3
#: Cores that one process of ComfyUI wants beside others.
CORES = 4


def run(results: Results, setting: Setting) -> None:
    """All rows, the shortest first."""
    ways = list(comfyui.WAYS)[: 1 if setting.tiny else None]
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // CORES)) as pool:
        began = [pool.submit(comfyui.nodes, results, setting, way) for way in ways]
        if len(began) >= (os.cpu_count() or 1) // CORES:
            for job in began:
                job.result()
        _in_this_process(results, setting)
        # pytest changes this process: it comes last.
        pytest_rows.run(results, setting)
        for job in began:
            job.result()


def _in_this_process(results: Results, setting: Setting) -> None:
    canvas = picture(64, 48) if setting.tiny else picture(520, 392)
    for one_step in (True, False):
        wanted: list[torch.Tensor] = []
        way = "one step" if one_step else f"{STEPS} steps"
        for dtype in DTYPES:
            name = f"nano, {way}, {str(dtype).removeprefix('torch.')}, against float32 on the CPU"
            results.row(name, partial(_against_the_cpu, setting, canvas, one_step, dtype, wanted))
    results.row("numbers that overflow fp16 are computed in float32", lambda: _overflow(setting, canvas))
    results.row("memory runs out: tiles become smaller", lambda: _exhausted(setting))


def _nano(device: str, one_step: bool, dtype: torch.dtype) -> Any:
    from pgp_core.restorers.nano.restorer import NanoRestorer

    return NanoRestorer.load(one_step=one_step, device=device, dtype=dtype)


def _restored(pipeline: Any, canvas: torch.Tensor, **changes: Any) -> torch.Tensor:
    options = pipeline.recipe.options(**changes)
    result: torch.Tensor = pipeline.restore(canvas, options)
    return result


def _clean(result: torch.Tensor, wanted: torch.Tensor, **more: Any) -> dict[str, Any]:
    from large_pictures.levels import in_levels

    found = {**in_levels(result, wanted), **more}
    if not bool(result.isfinite().all()):
        raise FailedError("the result is not finite", found)
    if found["rms"] > CLEAN[0] or found["max"] > CLEAN[1]:
        raise FailedError(f"the result is off by more than {CLEAN[0]:g} levels ({CLEAN[1]:g} at most)", found)
    return found


def _against_the_cpu(
    setting: Setting, canvas: torch.Tensor, one_step: bool, dtype: torch.dtype, wanted: list[torch.Tensor]
) -> dict[str, Any]:
    if not wanted:
        wanted.append(_restored(_nano("cpu", one_step, torch.float32), canvas, steps=STEPS))
    return _clean(_restored(_nano(setting.device, one_step, dtype), canvas, steps=STEPS), wanted[0])


@contextmanager
def _said() -> Iterator[list[str]]:
    from large_pictures.plain import lines_said

    with lines_said() as said:
        yield said


def _overflow(setting: Setting, canvas: torch.Tensor) -> dict[str, Any]:
    """A layer whose outputs are too large for fp16, in front of a norm that takes that away again: the same picture."""
    wanted = _restored(_nano(setting.device, True, torch.float32), canvas)
    pipeline = _nano(setting.device, True, torch.float16)
    block = pipeline.unet.down_blocks[0].resnets[0]
    scale = 2.0**15
    with torch.no_grad():
        for layer in (block.conv1, block.time_emb_proj):
            for parameter in layer.parameters():
                parameter.mul_(scale)
    with _said() as said:
        result = _restored(pipeline, canvas)
    found = _clean(result, wanted, said=said)
    if not any("overflow" in line for line in said):
        raise FailedError("nothing overflowed", found)
    return found


def _exhausted(setting: Setting) -> dict[str, Any]:
    """A canvas that fits as long as there is memory; then there is half as much as it took."""
    pipeline = _nano(setting.device, True, torch.float16 if setting.cuda else torch.float32)
    # The largest that is still begun without tiles.
    canvas = picture(192, 192) if setting.tiny else picture(1536, 1536)
    result: list[torch.Tensor] = []

    def call() -> None:
        result[:] = [_restored(pipeline, canvas)]

    peak = setting.peak(call)
    wanted = result[0]
    limited = _limited_on_cuda if setting.cuda else _pretended
    with _said() as said, limited(pipeline, peak) as how:
        call()
    found = _clean_tiles(result[0], wanted, said=said, memory=how, peak_memory_bytes=peak)
    if not any("memory ran out" in line for line in said):
        raise FailedError("memory never ran out", found)
    # Afterwards it is as before.
    call()
    if not torch.equal(result[0], wanted) and not setting.cuda:
        raise FailedError("the run after it is another", found)
    return found


def _clean_tiles(result: torch.Tensor, wanted: torch.Tensor, **more: Any) -> dict[str, Any]:
    from large_pictures.levels import in_levels

    found = {**in_levels(result, wanted), **more}
    # Tiles see other borders; what comes of failed attempts would be far more.
    if not bool(result.isfinite().all()) or found["rms"] > 2.0:
        raise FailedError("the result in tiles is not nearly that without", found)
    return found


@contextmanager
def _limited_on_cuda(pipeline: Any, peak: int) -> Iterator[str]:
    """PyTorch's allocator refuses what would take more than half of what the whole canvas took beyond the weights."""
    held = torch.cuda.memory_allocated()
    allowed = held + (peak - held) // 2
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        yield f"{allowed} bytes of PyTorch's allocator"
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@contextmanager
def _pretended(pipeline: Any, peak: int) -> Iterator[str]:
    """A CPU's memory cannot be taken away: the UNet says that it ran out, for anything but small latents."""

    def refuse(_: Any, args: tuple[Any, ...]) -> None:
        if args[0].shape[-1] > 40:
            raise torch.OutOfMemoryError("out of memory, as on a GPU")

    handle = pipeline.unet.register_forward_pre_hook(refuse)
    try:
        yield "pretended"
    finally:
        handle.remove()
