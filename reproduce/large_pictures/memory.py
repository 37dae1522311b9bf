"""Resident memory and seconds of one step from a picture of a quarter's size, each size in a process of its own.

The largest resident memory above what the process had before; of one call of the UNet, of the denoiser with the blended
latent (which for nano is as large as the canvas), and of all from LQ to result, beside the canvas with its frame in
float32. Freed memory goes back to the system at once (glibc's ``MALLOC_MMAP_THRESHOLD_``). Seconds are of the
processor. Linux only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pgp_core.codecs import pixel as pixel_codec
from pgp_core.evaluation.summary import markdown_table
from pgp_core.images.sizes import Size
from pgp_core.restorers.nano import pipeline as nano_pipeline
from pgp_core.restorers.nano.family import NANO
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.denoiser import Denoiser
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Tiling

#: Result's side, tile (0: none).
SIZES = ((1024, 0), (1024, 512), (4096, 512), (8192, 512))
OVERLAP = 128


class Resident:
    """Resident memory of this process, in bytes; Linux."""

    def __init__(self) -> None:
        self.highest = 0

    @staticmethod
    def now() -> int:
        """At present."""
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def peak(self) -> int:
        """The most since the last call."""
        lines = Path("/proc/self/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
        self.highest = max(self.highest, peak)
        Path("/proc/self/clear_refs").write_text("5")
        return peak


def in_this_process(side: int, tile: int, folder: Path) -> dict[str, Any]:
    """Memory and time of one picture of ``side`` x ``side``, in this process."""
    pipeline, resident = NanoRestorer.load(folder=folder), Resident()
    lq = torch.rand(1, 3, side // 4, side // 4, generator=torch.Generator().manual_seed(0))
    multiple = NANO.frame.multiple
    framed = -(-(side + 2 * NANO.frame.border) // multiple) * multiple
    # What the first call of all sets up is no picture's.
    upscale(pipeline, lq[..., :32, :32], Size(scale=4.0), SampleOptions(cfg=1.0))
    calls: list[int] = []
    positions: list[int] = []
    denoising: list[int] = []
    entered = 0

    def enter(_: Any, args: tuple[Any, ...]) -> None:
        nonlocal entered
        resident.peak()
        entered = resident.now()
        positions.append(args[0].shape[-2] * args[0].shape[-1])

    def leave(*_: Any) -> None:
        calls.append(resident.peak() - entered)

    class Watched(Denoiser):
        def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            resident.peak()
            before, highest, resident.highest = resident.now(), resident.highest, 0
            out = super().__call__(x, t)
            resident.peak()
            denoising.append(resident.highest - before)
            resident.highest = max(highest, resident.highest)
            return out

    pipeline.unet.register_forward_pre_hook(enter)
    pipeline.unet.register_forward_hook(leave)
    nano_pipeline.Denoiser = Watched  # type: ignore[misc]
    before, resident.highest = resident.now(), 0
    Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    upscale(pipeline, lq, Size(scale=4.0), SampleOptions(cfg=1.0, tiling=Tiling(tile, OVERLAP)))
    seconds = time.process_time() - started
    resident.peak()
    return {
        "side": side,
        "tile": tile,
        "calls": len(calls),
        "canvas_bytes": framed * framed * 3 * 4,
        "call_bytes": max(calls),
        "denoiser_bytes": max(denoising),
        "process_bytes": resident.highest - before,
        "seconds": round(seconds, 2),
        "unet_pixels": sum(positions) * pixel_codec.FACTOR**2,
    }


def measure(side: int, tile: int, folder: Path) -> dict[str, Any]:
    """:func:`in_this_process` in a process of its own."""
    threshold = {f"MALLOC_{name}_THRESHOLD_": str(2**17) for name in ("MMAP", "TRIM")}
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, __file__, str(side), str(tile), str(folder)]
    done = subprocess.run(command, env={**os.environ, **threshold, **threads}, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: Mapping[str, Any]) -> str:
    """As Markdown."""
    rows = []
    for v in found.values():
        sizes = [f"{v[k] / 2**20:.0f}" for k in ("call_bytes", "denoiser_bytes", "process_bytes")]
        share = v["unet_pixels"] / v["side"] ** 2
        row = [f"{v['side']}², {'tiles of ' + str(v['tile']) if v['tile'] else 'no tiles'}", str(v["calls"]), *sizes]
        row += [f"{v['process_bytes'] / v['canvas_bytes']:.1f}", f"{v['seconds']:.1f}", f"{share:.2f}"]
        rows.append([*row, f"{v['seconds'] / v['unet_pixels'] * 1e6:.2f}"])
    heads = ["result", "calls", "a call (MiB)", "denoiser (MiB)", "process (MiB)", "in canvases", "s"]
    return markdown_table([*heads, "UNet's pixels over the result's", "s per UNet megapixel"], rows)


if __name__ == "__main__":
    print(json.dumps(in_this_process(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))  # noqa: T201
