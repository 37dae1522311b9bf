"""Memory that can still be had, and giving it back."""

from __future__ import annotations

import gc

import torch


def available(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where nothing says."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    return _said_by_linux("MemAvailable:") if device.type == "cpu" else None


def with_swap() -> int | None:
    """Bytes that processes can still have in all, on disk too; None where nothing says."""
    memory, swap = _said_by_linux("MemAvailable:"), _said_by_linux("SwapFree:")
    return None if memory is None else memory + (swap or 0)


def _said_by_linux(name: str) -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def free_memory(device: torch.device) -> None:
    """Give back what nothing uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
