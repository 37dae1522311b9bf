"""How much memory is free, and giving back what is not used."""

from __future__ import annotations

import gc

import torch


def available(device: torch.device) -> int | None:
    """Free bytes on a device; None where the system does not say."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + unused)
    return _said_by_linux("MemAvailable:") if device.type == "cpu" else None


def with_swap() -> int | None:
    """Bytes that processes can still take in all, swap included; None where the system does not say."""
    memory, swap = _said_by_linux("MemAvailable:"), _said_by_linux("SwapFree:")
    return None if memory is None else memory + (swap or 0)


def _said_by_linux(name: str) -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def free_memory(device: torch.device) -> None:
    """Give back memory that nothing uses any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
