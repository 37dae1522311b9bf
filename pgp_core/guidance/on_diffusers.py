"""Guidance hooked into a diffusers UNet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import GuidanceError
from .module import Guidance


class Reached(Exception):  # noqa: N818 - not an error: it ends a UNet call early
    """Raised out of a guided UNet call that was asked to stop at a site.

    Attributes:
        features: the UNet's own there, ``(B, C, H, W)`` in the dtype in which the site computes.
    """

    def __init__(self, features: torch.Tensor):
        super().__init__("the UNet has come to the site")
        self.features = features


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
    phased: Mapping[int, torch.Tensor] | None = None,
    stop: int | None = None,
) -> Iterator[_Run]:
    """Hook guidance into a diffusers UNet for the duration of a ``with`` block.

    The hook sits on the site's module, so the skip connection takes the fused features too.

    Args:
        features: from :meth:`Guidance.features`; batch 1 or the batch of the UNet call. A call with k times
            the batch (CFG) has them repeated k times.
        strength: may be changed on the yielded object between calls (the sampling range).
        phased: of sites whose phase exchange has been made already, see :meth:`Guidance.fuse`.
        stop: the site at which a UNet call ends with :class:`Reached`.

    Raises:
        GuidanceError: if the UNet has no such site.
        Reached: out of a UNet call inside the block, with ``stop``.
    """
    run = _Run(strength, exchange)

    def hook(site: int) -> Any:
        def fuse(_module: Any, _inputs: Any, h: torch.Tensor) -> torch.Tensor:
            f = features[site].to(h.device)
            if f.shape[0] != 1 and h.shape[0] % f.shape[0] == 0:
                f = f.repeat(h.shape[0] // f.shape[0], 1, 1, 1)
            # A PEAM stays in float32 where the UNet is in half precision, which its convolutions overflow.
            own = h.to(guidance.dtype_at(site, f))
            if site == stop:
                raise Reached(own)
            made = (phased or {}).get(site)
            return guidance.fuse(site, own, f, run.strength, run.exchange, made).to(h.dtype)

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
