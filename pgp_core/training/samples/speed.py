"""How fast samples are made."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from .loading import Samples


@dataclass(frozen=True)
class Speed:
    """How fast one process made samples on one core.

    Attributes:
        crops: how many were made.
        seconds: that passed.
        cpu_seconds: that the process computed; less where others had the core.
    """

    crops: int
    seconds: float
    cpu_seconds: float


def measure(samples: Samples, count: int) -> Speed:
    """Time the samples 0 to ``count - 1``; one more is made before.

    Raises:
        PGPError: what the samples raise.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        samples[count]
        started, computed = time.perf_counter(), time.process_time()
        for i in range(count):
            samples[i]
        return Speed(count, time.perf_counter() - started, time.process_time() - computed)
    finally:
        torch.set_num_threads(threads)
