"""Weights that are not numbers, found before they make a black picture."""

from __future__ import annotations

import torch


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; True of one without values."""
    if not tensor.numel() or tensor.is_meta or not tensor.is_floating_point():
        return True
    # PyTorch cannot compare 8-bit floats. float16 holds all of their values, and keeps infinity and NaN.
    low, high = torch.aminmax(tensor.detach().half() if tensor.itemsize == 1 else tensor.detach())
    return bool(torch.isfinite(low) and torch.isfinite(high))


def not_finite(source: str, name: str, before: torch.Tensor, dtype: torch.dtype) -> str:
    """The message for a weight that is not finite in a type.

    Args:
        source: the file.
        before: the weight as it stands in the file.
    """
    if is_finite(before):
        kind = str(dtype).removeprefix("torch.")
        return f"{source}: {name} has numbers too large for {kind}: choose another type, bf16 or fp32"
    return f"{source} has weights that are not finite ({name}): get it again"
