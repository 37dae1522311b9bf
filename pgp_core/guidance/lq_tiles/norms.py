"""GroupNorm with the statistics of a whole canvas that is seen tile by tile."""

from __future__ import annotations

from typing import Any

import torch


class GatheredError(Exception):
    """Not a fault: a piece came to a norm whose statistics are not complete; what it adds to them has been noted."""


class Statistics:
    """Mean and variance per picture and group, ``(B, groups)`` in float64, out of those of pieces.

    Args:
        groups: into which the channels are divided.
    """

    def __init__(self, groups: int):
        self._groups, self._count = groups, 0
        self.mean = self.variance = torch.zeros((), dtype=torch.float64)

    @classmethod
    def of(cls, layer: torch.nn.Module) -> Statistics:
        """Empty statistics of the kind that a GroupNorm takes."""
        groups = layer.num_groups
        assert isinstance(groups, int)
        return cls(groups)

    def add(self, x: torch.Tensor) -> None:
        """Take in a piece, ``(B, C, h, w)``, that no other piece overlaps."""
        wide = x.to(_wide(x)).unflatten(1, (self._groups, -1))
        variance, mean = (s.cpu().double() for s in torch.var_mean(wide, (2, 3, 4), correction=0))
        count = wide[0, 0].numel()
        share = count / (self._count + count)
        # Chan, Golub and LeVeque: sums of squares lose the variance where the mean is large.
        apart = mean - self.mean
        self.mean = self.mean + share * apart
        self.variance = (1 - share) * self.variance + share * variance + share * (1 - share) * apart.square()
        self._count += count

    @property
    def finite(self) -> bool:
        """Whether nothing that was taken in had overflowed."""
        return bool((self.mean.isfinite() & self.variance.isfinite()).all())


class CanvasNorms:
    """How norms are applied while a stage is run on the pieces of a canvas; a :data:`.stages.Norm`.

    A norm whose statistics are known is applied with them. At the first that is not, the piece's own are noted and
    :class:`GatheredError` is raised; after all pieces, :meth:`gathered` makes them known.

    Attributes:
        inner: what of the present piece belongs to no other, for a map of the stage.
    """

    def __init__(self) -> None:
        self.known: dict[torch.nn.Module, Statistics] = {}
        self.inner: tuple[Any, ...] = (...,)
        self._gathering: tuple[torch.nn.Module, Statistics] | None = None

    def __call__(self, layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        if layer in self.known:
            return _normed(layer, x, self.known[layer])
        if self._gathering is None:
            self._gathering = layer, Statistics.of(layer)
        self._gathering[1].add(x[self.inner])
        raise GatheredError

    def gathered(self) -> Statistics | None:
        """End of a pass over all pieces: the statistics that it completed, or None if it missed none."""
        if self._gathering is None:
            return None
        layer, statistics = self._gathering
        self.known[layer], self._gathering = statistics, None
        return statistics


def _wide(x: torch.Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _normed(layer: torch.nn.Module, x: torch.Tensor, statistics: Statistics) -> torch.Tensor:
    wide, each = _wide(x), x.shape[1] // statistics.mean.shape[1]
    eps = layer.eps
    assert isinstance(eps, float)
    mean = statistics.mean.repeat_interleave(each, 1)
    rstd = (statistics.variance + eps).rsqrt().repeat_interleave(each, 1)
    weight, bias = (p.cpu().double() for p in _affine(layer, x))
    scale, shift = (s.to(wide).to(x.device)[..., None, None] for s in (weight * rstd, bias - mean * rstd * weight))
    if x.dtype == wide:
        return torch.addcmul(shift, x, scale)
    return x.to(wide).mul_(scale).add_(shift).to(x.dtype)


def _affine(layer: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a norm, ``(C,)``."""
    if type(layer) is torch.nn.GroupNorm:
        return layer.weight, layer.bias
    # ComfyUI's layers hold weights that may still have to be moved, cast or patched, and apply them alone: to nothing,
    # which leaves the bias, and to what has a mean of 0 and a variance of 1.
    eps = layer.eps
    assert isinstance(eps, float)
    probe = torch.zeros(2, x.shape[1], 1, 2, device=x.device)
    probe[1, :, :, 0], probe[1, :, :, 1] = -1, 1
    bias, out = layer(probe)
    return (out[:, 0, 1] - out[:, 0, 0]) * (0.5 * (1 + eps) ** 0.5), bias[:, 0, 0]
