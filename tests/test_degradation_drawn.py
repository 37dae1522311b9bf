"""What the second-order degradation draws, against its configuration, over 10,000 draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pgp_core.errors import PGPError
from pgp_core.training.second_order import FAMILIES, Kernel, Pass, Recipe, SecondOrder

DRAWS = 10_000


#: FaithDiff's train_kernel.yml, written down again.
YAML: dict[str, Any] = {
    "kernel_prob": (0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
    "sinc": 0.1,
    "betag": (0.5, 4.0),
    "betap": (1.0, 2.0),
    "gaussian": 0.5,
    "gray": 0.4,
}


FIRST = {
    **YAML,
    "sigma": (0.2, 3.0),
    "resize_prob": (0.2, 0.7, 0.1),
    "resize": (0.3, 1.5),
    "noise": (1, 15),
    "poisson": (0.05, 2.0),
    "jpeg": (60, 95),
}


SECOND = {
    **YAML,
    "sigma": (0.2, 1.5),
    "resize_prob": (0.3, 0.4, 0.3),
    "resize": (0.6, 1.2),
    "noise": (1, 12),
    "poisson": (0.05, 1.0),
    "jpeg": (60, 100),
}


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    draw = SecondOrder().recipe
    return [draw(np.random.default_rng([5, i])) for i in range(DRAWS)]


def shares(values: list[Any], expected: dict[Any, float]) -> None:
    """Each value occurs as often as it should, within four standard deviations, and nothing else occurs."""
    assert set(values) == {v for v, p in expected.items() if p}
    for value, p in expected.items():
        assert abs(values.count(value) / len(values) - p) <= 4 * math.sqrt(p * (1 - p) / len(values)), value


def uniform(values: list[float], low: float, high: float) -> None:
    """Kolmogorov and Smirnov do not object."""
    assert len(values) > 100
    assert low <= min(values) and max(values) <= high
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 1e-3


@pytest.mark.parametrize("which", ["first", "second"])
def test_kernels_are_drawn_as_configured(recipes: list[Recipe], which: str) -> None:
    config = FIRST if which == "first" else SECOND
    blurs = [getattr(r, which).blur for r in recipes]
    shares([k is None for k in blurs], {False: 1.0, True: 0.0} if which == "first" else {False: 0.5, True: 0.5})
    kernels: list[Kernel] = [k for k in blurs if k]
    shares([k.size for k in kernels], dict.fromkeys(range(7, 22, 2), 1 / 8))
    shares([k.family == "sinc" for k in kernels], {True: config["sinc"], False: 1 - config["sinc"]})
    for small in True, False:
        cutoffs = [k.cutoff for k in kernels if k.family == "sinc" and (k.size < 13) == small]
        uniform(cutoffs, math.pi / (3 if small else 5), math.pi)
    blobs = [k for k in kernels if k.family != "sinc"]
    shares([k.family for k in blobs], dict(zip(FAMILIES, config["kernel_prob"], strict=True)))
    for axis in 0, 1:
        uniform([k.sigma[axis] for k in blobs], *config["sigma"])
    assert all((k.sigma[0] == k.sigma[1]) == (not k.family.endswith("aniso")) for k in blobs)
    turned = [k for k in blobs if k.family.endswith("aniso")]
    uniform([k.angle for k in turned], -math.pi, math.pi)
    assert abs(np.corrcoef([k.sigma for k in turned], rowvar=False)[0, 1]) < 0.1
    for name, (low, high) in ("generalized", config["betag"]), ("plateau", config["betap"]):
        betas = [k.beta for k in blobs if k.family.startswith(name)]
        shares([b <= 1 for b in betas], {True: 0.5, False: 0.5})
        if low < 1:
            uniform([b for b in betas if b <= 1], low, 1)
        uniform([b for b in betas if b > 1], 1, high)


@pytest.mark.parametrize("which", ["first", "second"])
def test_resizes_noise_and_jpeg_are_drawn_as_configured(recipes: list[Recipe], which: str) -> None:
    config = FIRST if which == "first" else SECOND
    passes: list[Pass] = [getattr(r, which) for r in recipes]
    shares([p.direction for p in passes], dict(zip(("up", "down", "keep"), config["resize_prob"], strict=True)))
    uniform([p.factor for p in passes if p.direction == "up"], 1, config["resize"][1])
    uniform([p.factor for p in passes if p.direction == "down"], config["resize"][0], 1)
    assert {p.factor for p in passes if p.direction == "keep"} == {1.0}
    shares([p.mode for p in passes], dict.fromkeys(("area", "bilinear", "bicubic"), 1 / 3))
    noises = [p.noise for p in passes]
    shares([n.kind for n in noises], {"gaussian": config["gaussian"], "poisson": 1 - config["gaussian"]})
    uniform([n.level for n in noises if n.kind == "gaussian"], *config["noise"])
    uniform([n.level for n in noises if n.kind == "poisson"], *config["poisson"])
    for kind in "gaussian", "poisson":
        shares([n.grey for n in noises if n.kind == kind], {True: config["gray"], False: 1 - config["gray"]})
    low, high = config["jpeg"]
    qualities = [p.jpeg for p in passes]
    assert set(qualities) == set(range(low, high + 1))
    assert stats.chisquare(np.bincount(qualities)[low:]).pvalue > 1e-3


def test_the_end_is_drawn_as_configured(recipes: list[Recipe]) -> None:
    shares([r.mode for r in recipes], dict.fromkeys(("area", "bilinear", "bicubic"), 1 / 3))
    shares([r.sinc is None for r in recipes], {False: 0.8, True: 0.2})
    shares([r.jpeg_last for r in recipes], {True: 0.5, False: 0.5})
    sincs = [r.sinc for r in recipes if r.sinc]
    assert {k.family for k in sincs} == {"sinc"}
    shares([k.size for k in sincs], dict.fromkeys(range(7, 22, 2), 1 / 8))
    uniform([k.cutoff for k in sincs], math.pi / 3, math.pi)


def test_other_parameters_have_their_effect() -> None:
    """Every parameter of both passes away from its default, none mistaken for another."""
    draw = SecondOrder(
        kernel_range=(3, 5),
        kernel_prob=(0, 0, 0, 1, 0, 0),
        blur_sigma=(4.0, 5.0),
        betag_range=(0.9, 1.1),
        sinc_prob=0.0,
        resize_prob=(1, 0, 0),
        resize_range=(1.0, 2.0),
        gaussian_noise_prob=1.0,
        noise_range=(20.0, 21.0),
        gray_noise_prob=1.0,
        jpeg_range=(10, 11),
        second_blur_prob=1.0,
        kernel_prob2=(0, 0, 0, 0, 1, 0),
        blur_sigma2=(6.0, 7.0),
        betap_range2=(0.2, 1.0),
        sinc_prob2=0.0,
        resize_prob2=(0, 1, 0),
        resize_range2=(0.1, 1.0),
        gaussian_noise_prob2=0.0,
        poisson_scale_range2=(3.0, 4.0),
        gray_noise_prob2=0.0,
        jpeg_range2=(30, 30),
        final_sinc_prob=0.0,
        jpeg_last_prob=1.0,
    ).recipe
    drawn = [draw(np.random.default_rng(i)) for i in range(300)]
    for r in drawn:
        one, two = r.first, r.second
        assert one.blur and one.blur.family == "generalized_aniso" and one.blur.size in (3, 5)
        assert 4 <= one.blur.sigma[0] <= 5 and 4 <= one.blur.sigma[1] <= 5 and 0.9 <= one.blur.beta <= 1.1
        assert one.direction == "up" and 1 <= one.factor <= 2
        assert one.noise.kind == "gaussian" and 20 <= one.noise.level <= 21 and one.noise.grey
        assert one.jpeg in (10, 11)
        assert two.blur and two.blur.family == "plateau_iso" and 6 <= two.blur.sigma[0] <= 7
        assert 0.2 <= two.blur.beta <= 1
        assert two.direction == "down" and 0.1 <= two.factor <= 1
        assert two.noise.kind == "poisson" and 3 <= two.noise.level <= 4 and not two.noise.grey
        assert two.jpeg == 30
        assert r.sinc is None and r.jpeg_last
    assert {r.first.blur.size for r in drawn if r.first.blur} == {3, 5}
    always = SecondOrder(sinc_prob=1.0, sinc_prob2=1.0, second_blur_prob=1.0)
    both = [p.blur for i in range(20) for r in [always.recipe(np.random.default_rng(i))] for p in (r.first, r.second)]
    assert {k.family for k in both if k} == {"sinc"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scale", 2.5),
        ("scale", True),
        ("kernel_range", (8, 21)),
        ("kernel_range", (21, 7)),
        ("kernel_range", (7.0, 21.0)),
        ("kernel_prob", (0.5, 0.5)),
        ("kernel_prob2", (0.5, 0.5, 0.1, 0, 0, 0)),
        ("kernel_prob", (1.5, -0.5, 0, 0, 0, 0)),
        ("blur_sigma", (0.0, 3.0)),
        ("blur_sigma2", (3.0, 1.0)),
        ("betag_range", (1.5, 4.0)),
        ("betap_range2", (0.5, 0.9)),
        ("resize_range", (1.1, 1.5)),
        ("resize_prob", "often"),
        ("noise_range", (-1, 5)),
        ("noise_range2", (1, math.nan)),
        ("poisson_scale_range", 1.0),
        ("jpeg_range", (60.5, 95)),
        ("jpeg_range2", (60, 101)),
        ("sinc_prob", 1.5),
        ("gray_noise_prob2", None),
        ("jpeg_last_prob", True),
    ],
)
def test_a_wrong_parameter_is_named(name: str, value: Any) -> None:
    with pytest.raises(PGPError, match=rf"^{name} must be ") as raised:
        SecondOrder(**{name: value})
    assert "\n" not in str(raised.value)


def test_lists_become_tuples() -> None:
    assert SecondOrder(jpeg_range=[60, 95], blur_sigma=[0.2, 3.0]) == SecondOrder()  # type: ignore[arg-type]
    hash(SecondOrder(kernel_prob=[1, 0, 0, 0, 0, 0]))  # type: ignore[arg-type]
