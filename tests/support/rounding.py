"""How far apart rounding may take two ways to one result: by arithmetic, not by what one machine showed.

Processors, and numbers of threads, add the same products in other orders. A sum of n products is then off by about
sqrt(n) units in the last place of its largest terms (a random walk; n at the very worst), and what follows carries that
on. So a bound is a stated number of units times the largest value that the computation goes through.
"""

from __future__ import annotations

import torch

#: Units in the last place for one layer, one transform or one formula: sums of up to 1,000 products, twice.
LAYER = 64
#: For a whole UNet, encoder or text encoder: a random walk over 60 layers of 1,000 products each, sqrt(60,000) = 245.
NETWORK = 256
#: Where a run amplifies rounding (sigmas, CFG, a decoder) nobody can say by how much; but the same arithmetic shows it,
#: done in float32 beside float64. Another order of additions may do this many times as much.
RATIO = 8


def bound(units: float, *largest: torch.Tensor | float, dtype: torch.dtype = torch.float32) -> float:
    """``units`` units in the last place of the largest value among those given.

    Args:
        largest: what the computation goes through, and factors of it already multiplied in: latents of a sampler with
            its largest sigma, a prediction with 2 * cfg - 1.
    """
    values = [float(v.detach().abs().max()) if isinstance(v, torch.Tensor) else abs(float(v)) for v in largest]
    return units * torch.finfo(dtype).eps * max(values)


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest absolute difference, in float64."""
    assert actual.shape == expected.shape, (tuple(actual.shape), tuple(expected.shape))
    return float((actual.detach().double() - expected.detach().double()).abs().max())


def allowed(rounded: torch.Tensor, exact: torch.Tensor) -> float:
    """How far a float32 result may be from the exact one, by what float32 does to an oracle of the same arithmetic.

    Args:
        rounded: the oracle's result in float32.
        exact: the oracle's result in float64.
    """
    return RATIO * difference(rounded, exact) + bound(LAYER, exact)


def assert_same(actual: torch.Tensor, expected: torch.Tensor, units: float, *largest: torch.Tensor | float) -> None:
    """Both are finite and differ by :func:`bound` at most, in the type of ``actual``.

    Args:
        largest: of the way there, where that is more than the result itself.
    """
    allowed = bound(units, expected, *largest, dtype=actual.dtype)
    apart = difference(actual, expected)
    assert apart <= allowed, f"{apart:.3g} apart, where rounding explains {allowed:.3g}"


#: How far apart two latents of one run may lie, where they have unit variance and so reach 4.
LATENT = bound(NETWORK, 4.0)
