"""Blur kernels of Real-ESRGAN (Wang et al. 2021, sections 3.2 and 3.3), from formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

#: In the order of ``kernel_prob``.
FAMILIES = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
SINC = "sinc"


@dataclass(frozen=True)
class Kernel:
    """One kernel's parameters.

    With q = xᵀ Σ⁻¹ x, Σ of the standard deviations ``sigma`` turned by ``angle``, the weights are exp(-q/2) for the
    plain families, exp(-q^β/2) for the generalized ones and 1/(1 + q^β) for the plateaus; for "sinc" they are the
    circular low-pass ω J₁(ωr) / (2πr). All are normalised to the sum 1.

    Attributes:
        family: one of :data:`FAMILIES`, or "sinc".
        size: taps along a side, odd.
        sigma: along the two axes, pixels; equal in the isotropic families, unused by "sinc".
        angle: of the first axis against x, radians.
        beta: shape of the generalized and the plateau families.
        cutoff: ω of "sinc", radians a pixel, at most π.
    """

    family: str
    size: int
    sigma: tuple[float, float] = (1.0, 1.0)
    angle: float = 0.0
    beta: float = 1.0
    cutoff: float = math.pi

    @property
    def separable(self) -> bool:
        """Whether the kernel is the outer product of :meth:`profile` with itself."""
        return self.family == "iso"

    def profile(self) -> npt.NDArray[np.float32]:
        """``(size,)``: the one-dimensional factor of an isotropic Gaussian; its sum is 1."""
        x = self._axis()
        weights = np.exp(-0.5 * (x / self.sigma[0]) ** 2)
        return (weights / weights.sum()).astype(np.float32)

    def weights(self) -> npt.NDArray[np.float32]:
        """``(size, size)``, rows are y; its sum is 1."""
        axis = self._axis()
        x, y = axis[None, :], axis[:, None]
        raw: npt.NDArray[np.float64]
        if self.family == SINC:
            raw = self._sinc(np.sqrt(x**2 + y**2))
        else:
            c, s = math.cos(self.angle), math.sin(self.angle)
            q = ((c * x + s * y) / self.sigma[0]) ** 2 + ((c * y - s * x) / self.sigma[1]) ** 2
            if self.family.startswith("plateau"):
                raw = 1 / (1 + q**self.beta)
            elif self.family.startswith("generalized"):
                raw = np.exp(-0.5 * q**self.beta)
            else:
                raw = np.exp(-0.5 * q)
        return (raw / raw.sum()).astype(np.float32)

    def _axis(self) -> npt.NDArray[np.float64]:
        return np.linspace(-(self.size - 1) / 2, (self.size - 1) / 2, self.size)

    def _sinc(self, r: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        at = np.maximum(r, 1e-9)
        j1 = torch.special.bessel_j1(torch.from_numpy(self.cutoff * at)).numpy()
        raw: npt.NDArray[np.float64] = np.where(
            r > 0, self.cutoff * j1 / (2 * np.pi * at), self.cutoff**2 / (4 * np.pi)
        )
        return raw


def trimmed(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Without the outer taps (rings of a square kernel) that together hold less than 1/10000 of all: less work, and
    less than a tenth of a level's difference."""
    absolute = np.abs(weights)
    total = absolute.sum()
    cut = 0
    while len(weights) - 2 * cut > 3:
        inner = (slice(cut + 1, len(weights) - cut - 1),) * weights.ndim
        if total - absolute[inner].sum() >= 1e-4 * total:
            break
        cut += 1
    kept = weights[(slice(cut, len(weights) - cut),) * weights.ndim]
    return np.ascontiguousarray(kept / kept.sum())
