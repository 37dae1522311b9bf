"""Peak memory of a call, measured where the system can say it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def peak_memory(device: torch.device, call: Callable[[], object]) -> int:
    """Peak bytes while ``call`` runs, with everything that is alive at the time, such as weights.

    On CUDA that is what PyTorch's allocator gave out (``max_memory_allocated``). On a Linux CPU it is the
    process's resident memory, so Python and the libraries themselves are in it (up to 1 GB); the system's
    peak is reset before the call. Elsewhere the peak of one call cannot be measured, and the answer is 0.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or not _reset_peak():
        call()
        return 0
    call()
    return _status("VmHWM")


def held_memory(device: torch.device) -> int:
    """Bytes held now, counted as :func:`peak_memory` counts; 0 where that cannot be measured."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") if device.type == "cpu" else 0


def available_memory() -> int | None:
    """Bytes of main memory that are free without swapping, or None where the system does not say (not Linux)."""
    return _read(Path("/proc/meminfo"), "MemAvailable") or None


def _reset_peak() -> bool:
    """Set the process's peak back to what it holds now; False if the system cannot."""
    # Freed memory that malloc still holds would count as ours. With another libc the peak is then a little high.
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    # A sandbox may take the request and ignore it.
    return 0 < _status("VmHWM") <= _status("VmRSS") * 1.01


def _status(field: str) -> int:
    return _read(_STATUS, field)


def _read(path: Path, field: str) -> int:
    """Bytes of a ``Field:  N kB`` line, 0 without one."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
