"""Seeded tensors of tests."""

from __future__ import annotations

import torch


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LQ = draw(3, 2, 4, 5, 7)
