"""Guidance where a UNet's features come by, whichever library the UNet is of: when it acts, and on what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..errors import GuidanceError
from .module import Guidance


@dataclass(frozen=True)
class ActiveRange:
    """The part of the sampling in which guidance acts, by a level that falls in its course: timesteps, or sigmas."""

    low: float = float("-inf")
    high: float = float("inf")

    @classmethod
    def of(cls, start_percent: float, end_percent: float, level: Callable[[float], float]) -> ActiveRange:
        """Open at the ends of the sampling.

        Args:
            start_percent, end_percent: 0 to 1 of the sampling.
            level: of a share of the sampling.
        """
        high = level(start_percent) if start_percent > 0 else float("inf")
        low = level(end_percent) if end_percent < 1 else float("-inf")
        return cls(low, high)

    @property
    def always(self) -> bool:
        """Whether no level is outside of it."""
        return (self.low, self.high) == (float("-inf"), float("inf"))

    def __contains__(self, level: float) -> bool:
        return self.low <= level <= self.high


def in_turn(features: torch.Tensor, batch: int) -> list[torch.Tensor]:
    """What each entry of a batch meets: the pictures' features, one after the other, again and again.

    Args:
        features: ``(n, C, H, W)`` of n pictures.
        batch: a multiple of n, since CFG runs the same pictures under each prompt.

    Returns:
        as many views ``(C, H, W)``; the same object for entries that meet the same.

    Raises:
        GuidanceError: if it is no multiple.
    """
    pictures = [features[i] for i in range(features.shape[0])]
    if batch % len(pictures):
        raise GuidanceError(f"guidance for {len(pictures)} pictures does not fit a batch of {batch}")
    return pictures * (batch // len(pictures))


def act(
    guidance: Guidance,
    site: int,
    h: torch.Tensor,
    rows: Callable[[], Sequence[torch.Tensor]],
    strength: float = 1.0,
    exchange: bool = True,
    phase: Callable[[torch.Tensor], torch.Tensor | None] | None = None,
) -> torch.Tensor:
    """What the UNet goes on with at a site.

    Args:
        site: index into ``guidance.spec.sites``.
        h: ``(B, C, H, W)`` UNet features.
        rows: gives the LQ features that each entry of the batch meets, as :func:`in_turn` does; on any device.
        strength, exchange: see :meth:`Guidance.fuse`.
        phase: h with the phase of more than is here, see :meth:`pgp_core.guidance.whole_phase.CanvasPhase.at`, or None
            where there is none; asked at sites that exchange phases.

    Returns:
        like h, in its dtype.

    Raises:
        GuidanceError: if the features do not fit.
        Reached: by ``phase``.
    """
    if strength == 0:
        return h
    phased = phase(h) if phase is not None and guidance.exchanges(site) else None
    each = rows()
    # Mostly one picture is all that a batch is about.
    same = all(row is each[0] for row in each)
    f = (each[0][None] if same else torch.stack(tuple(each))).to(h.device)
    own = h.to(guidance.dtype_at(site, h, f))
    if phased is not None:
        phased = phased.to(own.dtype)
    return guidance.fuse(site, own, f, strength, exchange, phased).to(h.dtype)
