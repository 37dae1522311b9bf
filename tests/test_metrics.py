"""Metrics against formulas, against piq where it is installed, and against figures that piq gave."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("skimage", reason='metrics need scikit-image: pip install "pgp-diffsr[eval]"')

from pgp_core.errors import PGPError
from pgp_core.evaluation.metrics import (
    AGAINST_HQ,
    METRICS,
    flat_noise,
    gmsd,
    haarpsi,
    luma,
    niqe,
    psnr_y,
    score,
    sharpness,
    ssim,
)


def scene(height: int, width: int) -> np.ndarray:
    """Waves of several sizes, another in each channel, and an edge; a formula, so the same everywhere."""
    y, x = np.mgrid[:height, :width] / 16.0
    planes = [np.sin(x * (1 + c) + np.cos(y * 2)) * np.cos(y * (0.5 + c) - x * x / 9) for c in range(3)]
    return np.clip(np.stack(planes, -1) * 0.3 + 0.5 + 0.2 * (x > y)[..., None], 0, 1)


def spoiled(picture: np.ndarray) -> np.ndarray:
    """Softer, tinted and grainy."""
    soft = (picture + np.roll(picture, 1, 0) + np.roll(picture, 1, 1) + np.roll(picture, (1, 1), (0, 1))) / 4
    i = np.arange(picture.size).reshape(picture.shape)
    return np.clip(soft * [0.9, 1.0, 1.05] + 0.03 * np.sin(i * 12.9898), 0, 1)


SIZES = [(96, 128), (64, 64), (65, 98), (66, 51)]

#: What piq 0.8.0 gives for these pictures in float64: HaarPSI and GMSD.
PIQ = {
    (96, 128): (0.771936, 0.03505056),
    (65, 98): (0.797472, 0.03462083),
}


@pytest.fixture
def piq() -> SimpleNamespace:
    """piq's functions on arrays."""
    try:
        import piq
        import torch
    except (ImportError, RuntimeError, AttributeError) as e:  # torchvision breaks in many ways
        pytest.skip(f"NOT COMPARED WITH piq, which cannot be imported: {e}")

    def tensor(p: np.ndarray) -> torch.Tensor:
        p = p[..., None] if p.ndim == 2 else p
        return torch.from_numpy(p).permute(2, 0, 1)[None]

    return SimpleNamespace(
        haarpsi=lambda a, b: float(piq.haarpsi(tensor(a), tensor(b))),
        gmsd=lambda a, b: float(piq.gmsd(tensor(a), tensor(b))),
    )


@pytest.mark.parametrize("size", SIZES)
def test_against_piq(piq: SimpleNamespace, size: tuple[int, int]) -> None:
    hq = scene(*size)
    bad = spoiled(hq)
    # piq rounds the YIQ matrix to four digits.
    assert haarpsi(bad, hq) == pytest.approx(piq.haarpsi(bad, hq), abs=1e-4)
    assert gmsd(bad, hq) == pytest.approx(piq.gmsd(bad, hq), abs=1e-6)


@pytest.mark.parametrize("size", PIQ)
def test_against_figures_of_piq(size: tuple[int, int]) -> None:
    hq = scene(*size)
    bad = spoiled(hq)
    expected_haarpsi, expected_gmsd = PIQ[size]
    assert haarpsi(bad, hq) == pytest.approx(expected_haarpsi, abs=1e-4)
    assert gmsd(bad, hq) == pytest.approx(expected_gmsd, abs=1e-6)


def test_equal_pictures_score_perfectly() -> None:
    hq = scene(64, 96)
    assert score(hq, hq) == {
        "psnr_y": pytest.approx(80),
        "ssim": pytest.approx(1),
        "haarpsi": pytest.approx(1),
        "gmsd": 0,
        "sharpness": 1,
        "flat_noise": 0,
    }


def test_black_pictures_score_finitely() -> None:
    black = np.zeros((32, 32, 3))
    assert haarpsi(black, black) == 1
    assert gmsd(black, black) == 0
    assert math.isnan(sharpness(black, black))


def test_luma_is_full_range_bt601() -> None:
    hq = scene(32, 32)
    np.testing.assert_allclose(luma(hq), hq @ [0.299, 0.587, 0.114], atol=1e-12)


def test_symmetry() -> None:
    """The similarity indices do not care which picture is the reference."""
    hq = scene(64, 64)
    bad = spoiled(hq)
    for metric in (haarpsi, gmsd, ssim, psnr_y):
        assert metric(bad, hq) == pytest.approx(metric(hq, bad), abs=1e-12)


@pytest.mark.parametrize("contrast", [0.25, 0.5, 2.0])
def test_sharpness_is_linear_in_contrast(contrast: float) -> None:
    hq = scene(64, 64) * 0.4 + 0.3
    assert sharpness((hq - 0.5) * contrast + 0.5, hq) == pytest.approx(contrast)


def test_sharpness_of_a_single_pixel() -> None:
    """|Laplacian| of a pixel of height 1: 4 there and 1 at each neighbour; of a 2x1 bar: 3, 3 and six times 1."""
    dot, bar = np.zeros((2, 16, 16, 3))
    dot[8, 8] = 1
    bar[8, 8:10] = 1
    assert sharpness(bar, dot) == pytest.approx(12 / 8)


def test_flat_noise_counts_flat_patches_only() -> None:
    rng = np.random.default_rng(0)
    hq = np.full((320, 320, 3), 0.5)
    hq[32:] += rng.normal(0, 0.05, (288, 320, 1))  # the two upper rows of patches, a tenth, are flat
    grain = rng.normal(0, 4 / 255, hq.shape[:2])[..., None]
    everywhere, above, below = grain.copy(), grain.copy(), grain.copy()
    above[32:], below[:32] = 0, 0
    assert flat_noise(hq + everywhere, hq) == pytest.approx(4, rel=0.02)
    assert flat_noise(hq + above, hq) == flat_noise(hq + everywhere, hq)
    assert flat_noise(hq + below, hq) == 0


def test_flat_noise_is_negative_for_a_smoother_result() -> None:
    rng = np.random.default_rng(0)
    hq = 0.5 + rng.normal(0, 3 / 255, (160, 160))[..., None].repeat(3, -1)
    patches = (255 * hq[..., 0]).reshape(10, 16, 10, 16).swapaxes(1, 2).reshape(100, -1).std(axis=1)
    expected = np.sort(patches)[:10].mean()
    assert flat_noise(np.full_like(hq, 0.5), hq) == pytest.approx(-expected)


@pytest.mark.parametrize("name", [*AGAINST_HQ, "delta_e"])
def test_unequal_sizes_are_refused_with_both(name: str) -> None:
    measure = METRICS[name].measure
    assert measure is not None
    for check in (measure, lambda a, b: score(a, b, [name])):
        with pytest.raises(PGPError, match="different sizes cannot be compared: 20x16 and 24x16"):
            check(np.zeros((16, 20, 3)), np.zeros((16, 24, 3)))
        with pytest.raises(PGPError, match=r"RGB pictures of shape .*, not \(16, 16\)"):
            check(np.zeros((16, 16)), np.zeros((16, 16)))
        with pytest.raises(PGPError, match="not"):
            check(np.zeros((0, 16, 3)), np.zeros((0, 16, 3)))


@pytest.mark.parametrize("name", ["lpips", "musiq", "nonsense"])
def test_what_no_two_arrays_have_is_refused(name: str) -> None:
    with pytest.raises(PGPError, match=f"'{name}' is no metric of two arrays: there are psnr_y, ssim, niqe"):
        score(scene(32, 32), scene(32, 32), [name])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (11, 11), (16, 17)])
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_tiny_and_flat_pictures_have_a_figure_or_a_reason(size: tuple[int, int], level: float) -> None:
    flat, other = np.full((*size, 3), level), scene(*size)
    for metric in METRICS.values():
        if metric.measure is None or metric.reference == "lq":
            continue
        for pictures in ((flat, flat), (other, flat), (flat, other)):
            try:
                value = metric.measure(*pictures[: 2 if metric.reference else 1])
            except PGPError as e:
                assert f"{size[1]}x{size[0]}" in str(e)
            else:
                assert math.isfinite(value) or metric.name == "sharpness"


def test_two_and_one_picture_go_together() -> None:
    hq = scene(96, 192)
    assert score(spoiled(hq), hq, ["niqe", "gmsd"]) == {"niqe": niqe(spoiled(hq)), "gmsd": gmsd(spoiled(hq), hq)}


def test_importing_the_metrics_takes_no_large_library() -> None:
    """Worker processes start with it."""
    code = "import sys, pgp_core.evaluation.metrics; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "scipy", "skimage"} & set(done.stdout.split())


def test_a_picture_without_a_patch_is_refused() -> None:
    with pytest.raises(PGPError, match="at least 16x16 pixels, not 40x12"):
        flat_noise(np.zeros((12, 40, 3)), np.zeros((12, 40, 3)))


@pytest.mark.parametrize("name", ["ssim", "haarpsi", "gmsd", "niqe"])
def test_missing_library_names_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("skimage.color", "scipy.ndimage"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(PGPError, match=r'pip install "pgp-diffsr\[eval\]"') as e:
        score(scene(96, 192), scene(96, 192), [name])
    assert "\n" not in str(e.value)
