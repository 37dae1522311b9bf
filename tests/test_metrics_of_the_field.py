"""PSNR, SSIM, NIQE and ΔE against scikit-image, and against their papers' formulas written out slowly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("skimage", reason='metrics need scikit-image: pip install "pgp-diffsr[eval]"')
from scipy import special
from skimage import color
from skimage.metrics import structural_similarity

from pgp_core.errors import PGPError
from pgp_core.evaluation.metrics import delta_e, luma, niqe, psnr_y, ssim
from pgp_core.evaluation.metrics.luma import whole
from pgp_core.evaluation.metrics.niqe import MODEL


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """NumPy says nothing of what a picture holds."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def grainy(height: int, width: int, seed: int = 0, grain: float = 0.06) -> np.ndarray:
    """Waves in whole levels of 255, with grain whose strength and fineness change over the picture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 24.0
    planes = np.stack([np.sin(x * (1 + c / 3) + np.cos(y)) * np.cos(y * (0.5 + c) - x * x / 30) for c in range(3)], -1)
    noise = rng.normal(0, 1, planes.shape)
    noise = np.where((x > y)[..., None], noise, (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 1.7)
    return np.round(255 * np.clip(0.5 + 0.3 * planes + grain * noise * (0.3 + (x % 5)[..., None] / 5), 0, 1)) / 255


def studio(rgb: np.ndarray) -> np.ndarray:
    return 16 + rgb @ [65.481, 128.553, 24.966]


# -- PSNR --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 80), (1, 1), (301, 7)])
def test_psnr_is_that_of_studio_luma(size: tuple[int, int]) -> None:
    hq, bad = grainy(*size), grainy(*size, seed=1)
    error = np.mean((studio(bad) - studio(hq)) ** 2) / 255**2
    assert psnr_y(bad, hq) == pytest.approx(-10 * math.log10(error + 1e-8), abs=1e-9)
    ycbcr = color.rgb2ycbcr(hq)[..., 0] - color.rgb2ycbcr(bad)[..., 0]
    assert psnr_y(bad, hq) == pytest.approx(20 * math.log10(255 / math.sqrt(np.mean(ycbcr**2))), abs=1e-3)


def test_psnr_of_one_level_of_white() -> None:
    # A grey level is worth 219/255 of a level of studio luma.
    hq = np.full((16, 16, 3), 100 / 255)
    error = (219 / 255 / 255) ** 2
    assert psnr_y(hq + 1 / 255, hq) == pytest.approx(-10 * math.log10(error + 1e-8), abs=1e-9)
    # What is added to the error shows here: 0.0037 dB.
    assert psnr_y(hq + 1 / 255, hq) == pytest.approx(-10 * math.log10(error), abs=0.004)


def test_sixteen_bits_count() -> None:
    hq = np.full((16, 16, 3), 20_000 / 65535)
    assert 72 < psnr_y(hq + 16 / 65535, hq) < psnr_y(hq + 1 / 65535, hq) < psnr_y(hq, hq)


# -- SSIM --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 97), (300, 40), (11, 11), (139, 140)])
def test_ssim_of_like_pictures_is_scikit_image_s(size: tuple[int, int]) -> None:
    """Where no place is the negative of another, which alone is counted differently."""
    hq = grainy(*size)
    bad = np.clip(0.9 * hq + 0.02 + 0.01 * grainy(*size, seed=1), 0, 1)
    mean, everywhere = structural_similarity(
        np.round(studio(bad)),
        np.round(studio(hq)),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert everywhere[5:-5, 5:-5].min() > 0
    assert ssim(bad, hq) == pytest.approx(mean, abs=1e-9)


def test_ssim_clips_what_goes_opposite_ways() -> None:
    """By its formula, a window at a time; the second picture is partly the first one's negative."""
    hq, other = grainy(40, 33), grainy(40, 33, seed=1)
    bad = np.where(np.arange(33)[:, None] < 18, 1 - hq, (hq + other) / 2)
    x, y = np.round(studio(bad)), np.round(studio(hq))
    row, column = np.mgrid[-5:6, -5:6]
    w = np.exp(-(row**2 + column**2) / 4.5)
    w /= w.sum()
    values, clipped = [], 0
    for i in range(30):
        for j in range(23):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (w * a).sum(), (w * b).sum()
            va, vb, covariance = (w * (a - ma) ** 2).sum(), (w * (b - mb) ** 2).sum(), (w * (a - ma) * (b - mb)).sum()
            structure = (2 * covariance + 58.5225) / (va + vb + 58.5225)
            clipped += structure < 0
            values.append(max(structure, 0) * (2 * ma * mb + 6.5025) / (ma**2 + mb**2 + 6.5025))
    assert clipped > 100
    assert ssim(bad, hq) == pytest.approx(np.mean(values), abs=1e-9)


def test_a_picture_without_a_window_is_refused() -> None:
    with pytest.raises(PGPError, match="SSIM needs pictures of at least 11x11 pixels, not 40x10"):
        ssim(np.zeros((10, 40, 3)), np.zeros((10, 40, 3)))


def test_halves_are_rounded_upwards() -> None:
    every = np.array([(r, g, b) for r in range(0, 256, 5) for g in range(0, 256, 5) for b in range(256)])
    thousandths = every @ [299, 587, 114]
    assert (thousandths % 1000 == 500).sum() > 500
    np.testing.assert_array_equal(whole(255 * luma(every / 255)), (thousandths + 500) // 1000)


# -- NIQE --------------------------------------------------------------------------------------------------


def slow_niqe(rgb: np.ndarray) -> float:
    """NIQE as its paper and MATLAB say it, with loops, sums and SciPy's gamma function."""
    y = np.array([[float(math.floor(v + 0.5 + 1e-9)) for v in row] for row in 255 * (rgb @ [0.299, 0.587, 0.114])])
    rows, columns = y.shape[0] // 96, y.shape[1] // 96
    y = y[: rows * 96, : columns * 96]
    distance = np.arange(-3, 4)
    window = np.exp(-(distance[:, None] ** 2 + distance**2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    # Weights of float32, whose sum is not quite 1, at their exact ratios.
    window *= window.astype(np.float32).sum(dtype=np.float64)
    features = []
    for side in (96, 48):
        mean, square = np.zeros_like(y), np.zeros_like(y)
        padded = np.pad(y, 3, mode="edge")
        for i in range(7):
            for j in range(7):
                shifted = padded[i : i + y.shape[0], j : j + y.shape[1]]
                mean += window[i, j] * shifted
                square += window[i, j] * shifted**2
        normalised = (y - mean) / (np.sqrt(np.abs(square - mean**2)) + 1)
        features.append(
            [
                of_block(normalised[r * side : (r + 1) * side, c * side : (c + 1) * side])
                for r in range(rows)
                for c in range(columns)
            ]
        )
        y = matlab_half(matlab_half(y).T).T
    found = np.concatenate(features, axis=1)
    complete = found[~np.isnan(found).any(axis=1)]
    with np.load(MODEL) as file:
        mean, covariance = file["mu_pris_param"][0], file["cov_pris_param"]
    centred = complete - complete.mean(axis=0)
    spread = (covariance + centred.T @ centred / (len(complete) - 1)) / 2
    difference = np.array([np.mean([v for v in column if not math.isnan(v)]) for column in found.T]) - mean
    return math.sqrt(difference @ np.linalg.pinv(spread) @ difference)


def of_block(block: np.ndarray) -> list[float]:
    shape, left, right = fit(block)
    found = [shape, (left + right) / 2]
    for down, across in ((0, 1), (1, 0), (1, 1), (1, -1)):
        shape, left, right = fit(block * np.roll(np.roll(block, down, 0), across, 1))
        found += [shape, (right - left) * special.gamma(2 / shape) / special.gamma(1 / shape), left, right]
    return found


def fit(values: np.ndarray) -> tuple[float, float, float]:
    """Shape and both scales of an asymmetric generalised Gaussian, by Lasmar et al.'s moments."""
    shapes = np.linspace(0.2, 10, 9801)
    ratios = special.gamma(2 / shapes) ** 2 / (special.gamma(1 / shapes) * special.gamma(3 / shapes))
    # The mean of no values is not a number; nor is what is made of it, and of such MATLAB's min takes the first.
    left, right = (
        math.sqrt(np.mean(side**2)) if len(side) else math.nan for side in (values[values < 0], values[values > 0])
    )
    if math.isnan(left) or math.isnan(right):
        scale = math.sqrt(special.gamma(5) / special.gamma(15))
        return 0.2, left * scale, right * scale
    g = left / right
    r = np.mean(np.abs(values)) ** 2 / np.mean(values**2)
    shape = shapes[np.argmin((ratios - r * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2) ** 2)]
    scale = math.sqrt(special.gamma(1 / shape) / special.gamma(3 / shape))
    return shape, left * scale, right * scale


def matlab_half(y: np.ndarray) -> np.ndarray:
    """Columns of half the length by ``imresize(y, 0.5)``: its weights and indices, one output row at a time."""

    def cubic(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0

    n = len(y)
    out = np.zeros((n // 2, y.shape[1]))
    mirrored = [*range(n), *reversed(range(n))]
    for row in range(1, n // 2 + 1):
        centre = row / 0.5 + 0.5 * (1 - 1 / 0.5)
        first = math.floor(centre - 8 / 2)
        taps = range(first, first + 10)
        weights = [0.5 * cubic(0.5 * (centre - tap)) for tap in taps]
        for tap, weight in zip(taps, weights, strict=True):
            out[row - 1] += weight / sum(weights) * y[mirrored[(tap - 1) % (2 * n)]]
    return out


@pytest.mark.parametrize("size", [(192, 288), (210, 391), (96, 192), (500, 97)])
def test_niqe_is_the_paper_s(size: tuple[int, int]) -> None:
    # A shape lies on a grid of 0.001; a value in the middle between two may fall to either side.
    assert niqe(grainy(*size)) == pytest.approx(slow_niqe(grainy(*size)), abs=2e-3)


@pytest.mark.parametrize("level", [0.0, 0.7, 1.0])
def test_niqe_of_partly_flat_pictures_is_the_paper_s(level: float) -> None:
    """Blocks without any texture, some with a little, and a flat half of a block."""
    rgb = grainy(288, 300)
    rgb[:96, :192] = level
    rgb[96:150, :200] = level
    assert niqe(rgb) == pytest.approx(slow_niqe(rgb), abs=2e-3)


@pytest.mark.parametrize("size", [(95, 500), (96, 96), (191, 191), (1, 1)])
def test_niqe_of_a_picture_without_two_blocks_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(PGPError, match=f"needs two of them, so at least 96x192; this picture has {size[1]}x{size[0]}"):
        niqe(np.zeros((*size, 3)))


def test_niqe_of_a_flat_picture_is_refused() -> None:
    for level in (0.0, 0.4, 1.0):
        with pytest.raises(PGPError, match="without texture"):
            niqe(np.full((192, 192, 3), level))
    one = np.full((192, 192, 3), 0.5)
    one[:90, :90] = grainy(90, 90)
    with pytest.raises(PGPError, match="without texture"):
        niqe(one)


def test_niqe_looks_at_whole_levels() -> None:
    """Whatever the file holds: thousandths of a level are less than what lies between a colour and the next half."""
    rgb = grainy(192, 192)
    assert niqe(rgb + 0.0005 / 255) == niqe(rgb)


# -- Colour ------------------------------------------------------------------------------------------------


def test_delta_e_is_the_mean_over_the_picture() -> None:
    a, b = grainy(150, 20), grainy(150, 20, seed=1)
    expected = np.mean([color.deltaE_ciede2000(color.rgb2lab(p), color.rgb2lab(q)) for p, q in zip(a, b, strict=True)])
    assert delta_e(a, b) == pytest.approx(expected, rel=1e-12)
    assert delta_e(a, a) == 0
    # L* of black is 0, of white 100, where CIEDE2000 has a weight of 1 + 0.015 · 0 / √20 at their mean.
    assert delta_e(np.zeros((2, 2, 3)), np.ones((2, 2, 3))) == pytest.approx(100, abs=1e-2)
