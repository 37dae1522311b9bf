"""What every part is told, and what it does with it alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """Where and how to run.

    Attributes:
        device: "cuda" or "cpu".
        tiny: models and pictures so small that a CPU does them in seconds.
        temporary: a folder for large files, gone after the run.
        comfyui: a ComfyUI's folder, if there is one.
    """

    device: str
    tiny: bool
    temporary: Path
    comfyui: Path | None = None

    @property
    def cuda(self) -> bool:
        """Whether this is the real thing."""
        return self.device == "cuda"

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.cuda:
            torch.cuda.synchronize()

    def timed(self, call: Callable[[], Any], repeats: int = 1) -> dict[str, float]:
        """Median, least and most wall seconds of a call."""
        seconds = []
        for _ in range(repeats):
            self.wait()
            began = time.perf_counter()
            call()
            self.wait()
            seconds.append(time.perf_counter() - began)
        return {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}

    def peak(self, call: Callable[[], Any]) -> int:
        """Peak bytes while a call runs, all that is alive included; see :func:`pgp_core.bench.memory.peak_memory`."""
        from pgp_core.bench.memory import peak_memory

        return peak_memory(torch.device(self.device), call)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """``(1, 3, height, width)`` in [0, 1]: smooth like a photograph, with edges and a little of every frequency."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 8, generator=g)
    x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None]
    board = ((rows * 8 // height + columns * 8 // width) % 2).float()
    fine = torch.rand(1, 3, height, width, generator=g)
    return (0.75 * x + 0.15 * board + 0.1 * fine).clamp(0, 1)
