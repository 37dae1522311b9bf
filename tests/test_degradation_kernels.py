"""Blur kernels of the second-order degradation: by hand, against SciPy, and their blur."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage, special, stats

from pgp_core.training.second_order import Kernel, steps
from pgp_core.training.second_order.kernels import trimmed

KERNELS = [
    Kernel("iso", 21, (2.1, 2.1)),
    Kernel("aniso", 21, (2.5, 1.2), 0.6),
    Kernel("generalized_iso", 15, (1.5, 1.5), beta=0.6),
    Kernel("generalized_aniso", 19, (2.5, 1.0), -1.1, beta=3.0),
    Kernel("plateau_iso", 13, (1.4, 1.4), beta=1.7),
    Kernel("plateau_aniso", 21, (2.0, 0.5), 2.0, beta=1.2),
    Kernel("sinc", 21, cutoff=math.pi / 3),
    Kernel("sinc", 7, cutoff=2.9),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda k: f"{k.family}-{k.size}")
def test_a_kernel_adds_up_and_is_symmetric(kernel: Kernel) -> None:
    w = kernel.weights()
    assert w.shape == (kernel.size, kernel.size)
    assert w.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(w, w[::-1, ::-1], atol=1e-8)


@pytest.mark.parametrize("kernel", KERNELS[:2], ids=lambda k: k.family)
def test_a_gaussian_has_its_covariance(kernel: Kernel) -> None:
    c, s = math.cos(kernel.angle), math.sin(kernel.angle)
    turn = np.array([[c, -s], [s, c]])
    covariance = turn @ np.diag(np.square(kernel.sigma)) @ turn.T
    y, x = np.mgrid[-10:11, -10:11]
    density = stats.multivariate_normal([0, 0], covariance).pdf(np.stack([x, y], -1))
    np.testing.assert_allclose(kernel.weights(), density / density.sum(), atol=1e-7)
    at = np.stack([x.ravel(), y.ravel()])
    np.testing.assert_allclose((kernel.weights().ravel() * at) @ at.T, covariance, rtol=2e-3, atol=1e-3)


def test_generalized_gaussian_and_plateau_by_hand() -> None:
    at = {(0, 0): 0.0, (1, 0): 1 / 4, (0, 1): 1.0, (3, 2): 9 / 4 + 4}
    for family, shape in (
        ("generalized_aniso", lambda q: math.exp(-0.5 * q**1.5)),
        ("plateau_aniso", lambda q: 1 / (1 + q**1.5)),
    ):
        w = Kernel(family, 9, (2.0, 1.0), 0.0, 1.5).weights()
        for (x, y), q in at.items():
            assert w[4 + y, 4 + x] / w[4, 4] == pytest.approx(shape(q), rel=1e-5)
        # A quarter turn takes the long axis from x to y.
        np.testing.assert_allclose(Kernel(family, 9, (2.0, 1.0), math.pi / 2, 1.5).weights(), w.T, atol=1e-7)
    np.testing.assert_allclose(
        Kernel("generalized_aniso", 9, (2.0, 1.0), 0.3, 1.0).weights(),
        Kernel("aniso", 9, (2.0, 1.0), 0.3).weights(),
        atol=1e-8,
    )


@pytest.mark.parametrize("kernel", KERNELS[-2:], ids=lambda k: str(k.size))
def test_sinc_against_scipy(kernel: Kernel) -> None:
    half = kernel.size // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    r = np.hypot(x, y)
    r[half, half] = 1
    expected = kernel.cutoff * special.j1(kernel.cutoff * r) / (2 * math.pi * r)
    expected[half, half] = kernel.cutoff**2 / (4 * math.pi)
    expected /= expected.sum()
    # Two libraries' Bessel functions, and float32: a few units in the last place of the largest weight.
    np.testing.assert_allclose(kernel.weights(), expected, rtol=0, atol=4 * np.finfo(np.float32).eps * expected.max())


@pytest.mark.parametrize("kernel", [*KERNELS, Kernel("iso", 21, (0.2, 0.2))], ids=lambda k: f"{k.family}-{k.size}")
def test_blur_is_correlation_that_reflects(kernel: Kernel) -> None:
    """Against SciPy with the whole kernel, so the taps that are left out are within the tolerance."""
    x = np.random.default_rng(0).uniform(0, 255, (41, 57, 3)).astype(np.float32)
    expected = np.stack([ndimage.correlate(p, kernel.weights(), mode="mirror") for p in x.transpose(2, 0, 1)], -1)
    np.testing.assert_allclose(steps.blur(x, kernel), expected, atol=0.05)
    assert trimmed(kernel.weights()).sum() == pytest.approx(1, abs=1e-6)
    assert steps.blur(x, None) is x


def test_small_kernels_are_trimmed() -> None:
    assert trimmed(Kernel("iso", 21, (0.2, 0.2)).weights()).shape == (3, 3)
    assert trimmed(Kernel("iso", 21, (1.0, 1.0)).weights()).shape == (9, 9)
    assert trimmed(Kernel("sinc", 21).weights()).shape == (21, 21)
