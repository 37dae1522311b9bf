"""A nano restorer with parts of its guidance taken away: for tables of what each part brings.

The restorer itself knows nothing of it: it gets a guidance whose features, or sites, are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace

import torch

from ..codecs import pixel
from ..guidance.lq_tiles import LQTiles
from ..guidance.module import Guidance
from ..images.canvas import pad
from ..restorers.nano.restorer import NanoRestorer


class _Ablated(Guidance):
    """The same weights, seen otherwise.

    Args:
        peam_lq: ``(B, 3, H, W)``, another picture that the PEAM alone sees.
        base: whether the LQ is added where the base takes it in.
        exchange: whether PEAM exchanges the phase; without, the UNet's features go on to its convolutions as they are.
    """

    def __init__(self, whole: Guidance, peam_lq: torch.Tensor | None, base: bool, exchange: bool):
        torch.nn.Module.__init__(self)
        self.__dict__.update({k: v for k, v in whole.__dict__.items() if k not in self.__dict__})
        for name, module in whole.named_children():
            self.add_module(name, module)
        self._peam_lq, self._base, self._exchange = peam_lq, base, exchange

    def features(
        self,
        lq: torch.Tensor,
        encoder_dtype: torch.dtype | None = None,
        tiles: LQTiles | None = None,
        sites: Sequence[int] | None = None,
    ) -> tuple[torch.Tensor, ...]:
        found = list(super().features(lq, encoder_dtype, tiles, sites))
        asked = [self.spec.sites[i] for i in (range(len(self.spec.sites)) if sites is None else sites)]
        if self._peam_lq is not None:
            other = super().features(pad(self._peam_lq, pixel.FACTOR).to(lq), encoder_dtype, tiles, sites)
            found = [o if s.fusion == "peam" else f for s, f, o in zip(asked, found, other, strict=True)]
        if not self._base:
            found = [torch.zeros_like(f) if s.is_base else f for s, f in zip(asked, found, strict=True)]
        return tuple(found)

    def fuse(
        self,
        site: int,
        h: torch.Tensor,
        f: torch.Tensor,
        strength: float = 1.0,
        exchange: bool = True,
        phased: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return super().fuse(site, h, f, strength, exchange and self._exchange, phased)


class _WithoutPEAM(_Ablated):
    """Its PEAM sites left out."""

    def __init__(self, whole: Guidance, peam_lq: torch.Tensor | None, base: bool, exchange: bool):
        super().__init__(whole, peam_lq, base, exchange)
        self.spec = replace(whole.spec, sites=tuple(s for s in whole.spec.sites if s.fusion != "peam"))
        self.peam = torch.nn.ModuleDict()


def ablated(
    restorer: NanoRestorer,
    peam: bool = True,
    peam_lq: torch.Tensor | None = None,
    exchange: bool = True,
    base: bool = True,
) -> NanoRestorer:
    """A restorer with parts taken away; the one given is left as it is, and shares its weights.

    Args:
        peam: False for no PEAM.
        peam_lq: ``(B, 3, H, W)`` in [0, 1], another picture for the PEAM alone.
        exchange: False for PEAM without the phase exchange.
        base: False for no LQ added at ``conv_in``.
    """
    other = copy(restorer)
    kind = _Ablated if peam else _WithoutPEAM
    other.guidance = kind(restorer.guidance, peam_lq, base, exchange)
    return other
