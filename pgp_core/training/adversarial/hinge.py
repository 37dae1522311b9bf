"""The hinge loss of adversarial training (Lim and Ye, 2017), each map of logits counting alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def of_discriminator(real: Sequence[torch.Tensor], fake: Sequence[torch.Tensor]) -> torch.Tensor:
    """``mean max(0, 1 - real) + mean max(0, 1 + fake)``, a scalar: 2 where it knows nothing."""
    found = [(1 - _full(r)).relu().mean() + (1 + _full(f)).relu().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(found).mean()


def of_model(fake: Sequence[torch.Tensor]) -> torch.Tensor:
    """``-mean fake``, a scalar."""
    return -torch.stack([_full(f).mean() for f in fake]).mean()


def _full(logits: torch.Tensor) -> torch.Tensor:
    """In float32 at least, also under autocast."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
