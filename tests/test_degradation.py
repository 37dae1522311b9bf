"""Second-order degradation: what is drawn against the configuration, each step against another implementation."""

from __future__ import annotations

import io
import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage, special, stats

from pgp_core.errors import PGPError
from pgp_core.training.opencv import opencv
from pgp_core.training.second_order import FAMILIES, Kernel, Noise, Pass, Recipe, SecondOrder, apply, steps
from pgp_core.training.second_order.kernels import trimmed
from pgp_core.training.second_order.noise import add_noise

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


# -- what is drawn -----------------------------------------------------------------------------------------


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


# -- kernels -----------------------------------------------------------------------------------------------

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
    np.testing.assert_allclose(kernel.weights(), expected / expected.sum(), atol=1e-7)


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


# -- steps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(30, 44), (90, 77), (60, 80)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resize_against_pytorch(mode: str, size: tuple[int, int]) -> None:
    x = np.random.default_rng(0).uniform(0, 255, (60, 80, 3)).astype(np.float32)
    planes = torch.from_numpy(x).permute(2, 0, 1)[None]
    expected = F.interpolate(planes, size=size, mode=mode, align_corners=False)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(steps.resize(x, *size, mode), expected, atol=0.05)


def test_area_takes_means_and_sizes_are_rounded_down() -> None:
    x = np.random.default_rng(0).uniform(0, 255, (60, 80, 3)).astype(np.float32)
    means = x.reshape(15, 4, 20, 4, 3).mean((1, 3))
    np.testing.assert_allclose(steps.resize(x, 15.99, 20.99, "area"), means, atol=1e-3)
    assert steps.resize(x, 0.3, 0.2, "area").shape == (1, 1, 3)


@pytest.mark.parametrize("quality", [60, 95, 100])
def test_jpeg_against_pillow(quality: int) -> None:
    """The same quantisation and subsampling; colours in the right order."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 255, (64, 80, 3)), (2, 2, 0))
    rgb = np.clip((smooth - 127) * 6 + 127, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(file)).astype(np.float32)
    ours = steps.jpeg(rgb[..., ::-1].astype(np.float32), quality)[..., ::-1]
    assert np.abs(ours - expected).mean() < 0.3
    assert np.abs(ours - rgb).mean() > 0.1


def test_jpeg_rounds_and_cuts() -> None:
    x = np.full((16, 16, 3), 300, np.float32)
    assert steps.jpeg(x, 100).max() == 255
    np.testing.assert_array_equal(steps.jpeg(np.full_like(x, 99.6), 100), 100)
    np.testing.assert_array_equal(steps.jpeg(np.full_like(x, -7), 100), 0)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("sigma", [1.0, 8.0, 15.0])
def test_gaussian_noise_has_its_level_on_flat_grey(sigma: float, grey: bool) -> None:
    flat = np.full((256, 256, 3), 128, np.float32)
    noise = add_noise(flat, Noise("gaussian", sigma, grey), np.random.default_rng(0)) - flat
    assert noise.std() == pytest.approx(sigma, rel=0.01)
    assert abs(noise.mean()) < 0.05 * sigma
    assert stats.kstest(noise[..., 0].ravel()[:5000] / sigma, "norm").pvalue > 1e-3
    correlation = np.corrcoef(noise.reshape(-1, 3), rowvar=False)[0, 1]
    assert correlation == pytest.approx(1.0 if grey else 0.0, abs=0.02)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("value", [4, 60, 128, 180])
def test_poisson_noise_has_its_level_on_flat_grey(value: int, grey: bool) -> None:
    """256 photons at white: v levels are 256 v / 255 of them, and one is 255 / 256 levels."""
    flat = np.full((256, 256, 3), value, np.float32)
    level = 0.5
    noise = add_noise(flat, Noise("poisson", level, grey), np.random.default_rng(0)) - flat
    assert noise.std() == pytest.approx(level * math.sqrt(256 * value / 255) * 255 / 256, rel=0.015)
    assert abs(noise.mean()) < 0.1
    exact = np.random.default_rng(1).poisson(256 * value / 255, 60_000)
    counts = np.rint((noise[..., 0] / level + value) * 256 / 255)
    for share in 0.01, 0.1, 0.5, 0.9, 0.99:
        assert abs(np.quantile(counts, share) - np.quantile(exact, share)) <= 1
    correlation = np.corrcoef(noise.reshape(-1, 3), rowvar=False)[0, 1]
    assert correlation == pytest.approx(1.0 if grey else 0.0, abs=0.02)


def test_noise_stays_in_range_and_black_has_no_photons() -> None:
    rng = np.random.default_rng(0)
    black, white = np.zeros((64, 64, 3), np.float32), np.full((64, 64, 3), 255, np.float32)
    assert not add_noise(black, Noise("poisson", 2.0, False), rng).any()
    for kind in "gaussian", "poisson":
        noisy = add_noise(white, Noise(kind, 3.0, False), rng)
        assert noisy.max() == 255 and 0 <= noisy.min() < 255
    # Grey Poisson noise follows the luma: blue counts little.
    blue = np.stack([white[..., 0], black[..., 0], black[..., 0]], -1)
    noise = add_noise(blue, Noise("poisson", 1.0, True), rng)[..., 1]
    assert 0 < noise.std() < math.sqrt(0.114 * 255)


# -- the whole ---------------------------------------------------------------------------------------------

NONE = Noise("gaussian", 0.0, False)
PLAIN = Recipe(
    Pass(None, "keep", 1.0, "area", NONE, 100), Pass(None, "keep", 1.0, "area", NONE, 100), "area", None, True
)


@pytest.mark.parametrize("jpeg_last", [False, True])
def test_a_recipe_of_nothing_is_a_box_filter(jpeg_last: bool) -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).uniform(0, 255, (132, 68, 3)), (20, 20, 0))
    hq = np.clip((smooth - 127) * 40 + 127, 0, 255).astype(np.uint8)
    lq = apply(replace(PLAIN, jpeg_last=jpeg_last), hq, 4, np.random.default_rng(0))
    assert lq.shape == (33, 17, 3) and lq.dtype == np.uint8
    # What is left is JPEG's chroma at half the size, twice.
    assert np.abs(lq - hq.reshape(33, 4, 17, 4, 3).mean((1, 3))).mean() < 3
    grey = np.repeat(hq[..., :1], 3, -1)
    lq = apply(replace(PLAIN, jpeg_last=jpeg_last), grey, 4, np.random.default_rng(0))
    assert np.abs(lq - grey.reshape(33, 4, 17, 4, 3).mean((1, 3))).max() < 3


@pytest.mark.parametrize("jpeg_last", [False, True])
def test_the_order_of_the_steps(jpeg_last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    blur1, blur2, sinc = Kernel("iso", 7), Kernel("aniso", 9), Kernel("sinc", 11)
    noise1, noise2 = Noise("gaussian", 1.0, False), Noise("poisson", 1.0, True)
    recipe = Recipe(
        Pass(blur1, "down", 0.51, "bilinear", noise1, 61),
        Pass(blur2, "up", 1.15, "bicubic", noise2, 62),
        "area",
        sinc,
        jpeg_last,
    )
    done: list[Any] = []

    def watched(real: Any) -> Any:
        def step(x: Any, *args: Any) -> Any:
            out = real(x, *args)
            done.append(out.shape[:2] if isinstance(args[-1], str) else (args[0], out.shape[:2]))
            return out

        return step

    for name in "blur", "resize", "jpeg", "add_noise":
        monkeypatch.setattr(steps, name, watched(getattr(steps, name)))
    apply(recipe, np.zeros((160, 80, 3), np.uint8), 4, np.random.default_rng(0))
    mid, near, end = (81, 40), (46, 23), (40, 20)
    first = [(blur1, (160, 80)), mid, (noise1, mid), (61, mid)]
    second = [(blur2, mid), near, (noise2, near)]
    last = [end, (sinc, end), (62, end)] if jpeg_last else [(62, near), end, (sinc, end)]
    assert done == first + second + last


def test_a_draw_depends_on_the_generator_alone() -> None:
    hq = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8))
    degradation = SecondOrder()
    drawn = [np.asarray(degradation.draw(hq, np.random.default_rng([1, i]))) for i in (0, 1, 0)]
    assert drawn[0].shape == (24, 32, 3)
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert (drawn[0] != drawn[1]).any()


def test_colours_stay_where_they_are() -> None:
    hq = np.zeros((128, 128, 3), np.uint8)
    hq[...] = (200, 90, 30)
    for i in range(40):
        lq = SecondOrder().draw(Image.fromarray(hq), np.random.default_rng(i))
        np.testing.assert_allclose(np.asarray(lq).mean((0, 1)), (200, 90, 30), atol=6)


def test_without_opencv_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    opencv.cache_clear()
    with pytest.raises(PGPError, match=r'pip install "pgp-diffsr\[train\]"'):
        SecondOrder().draw(Image.new("RGB", (64, 64)), np.random.default_rng(0))
