"""Guidance hooked into a UNet with diffusers' names: ours, or diffusers' own in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import GuidanceError
from .acting import act, in_turn
from .module import Guidance


class _Run:
    """What the hooks read during one guided stretch; filled by :func:`guided`."""

    def __init__(self, strength: float, exchange: bool):
        self.strength = strength
        self.exchange = exchange


@contextmanager
def guided(
    unet: torch.nn.Module,
    guidance: Guidance,
    features: Sequence[torch.Tensor],
    strength: float = 1.0,
    exchange: bool = True,
    phase: Callable[[int, torch.Tensor], torch.Tensor | None] | None = None,
) -> Iterator[_Run]:
    """Hook guidance into a UNet for the duration of a ``with`` block.

    The hook sits on the site's module, so the skip connection takes the fused features too.

    Args:
        features: from :meth:`Guidance.features`; batch 1 or the batch of the UNet call. A call with k times
            the batch (CFG) has them repeated k times.
        strength: may be changed on the yielded object between calls (the sampling range).
        phase: of a site and its features, see :func:`pgp_core.guidance.acting.act`.

    Raises:
        GuidanceError: if the UNet has no such site.
        Reached: by ``phase``, out of a UNet call inside the block.
    """
    run = _Run(strength, exchange)

    def hook(site: int) -> Any:
        def fuse(_module: Any, _inputs: Any, h: torch.Tensor) -> torch.Tensor:
            of_site = None if phase is None else lambda h: phase(site, h)
            return act(
                guidance, site, h, lambda: in_turn(features[site], h.shape[0]), run.strength, run.exchange, of_site
            )

        return fuse

    handles = []
    try:
        for i, site in enumerate(guidance.spec.sites):
            try:
                module = unet.get_submodule(site.module)
            except AttributeError:
                raise GuidanceError(f"this UNet has no {site.module}, where the guidance works") from None
            handles.append(module.register_forward_hook(hook(i)))
        yield run
    finally:
        for handle in handles:
            handle.remove()
