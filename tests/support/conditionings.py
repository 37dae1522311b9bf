"""Entries of CONDITIONING, their equality, and their refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from pgp_core.errors import ConditioningError


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def sdxl(dtype: torch.dtype = torch.float32, batch: int = 1, **options: Any) -> list[Any]:
    """An entry as core's CLIPTextEncodeSDXL outputs it."""
    sizes = {"width": 1024, "height": 768, "crop_w": 8, "crop_h": 16, "target_width": 2048, "target_height": 1536}
    pooled = draw(batch, 1280, dtype=dtype, seed=1)
    return [draw(batch, 77, 2048, dtype=dtype), {"pooled_output": pooled, **sizes, **options}]


def small(**options: Any) -> list[Any]:
    return [draw(1, 5, 8), {"pooled_output": draw(1, 4, seed=1), **options}]


def same_bits(a: Any, b: Any) -> bool:
    """Equality that knows dtypes, types, and the sign of zero."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        return torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same_bits, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same_bits(a[k], b[k]) for k in a)
    return type(a) is type(b) and repr(a) == repr(b)


def refusal(action: Callable[[], Any], *words: str) -> None:
    """It raises a ConditioningError of one line with these words."""
    with pytest.raises(ConditioningError) as error:
        action()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message
