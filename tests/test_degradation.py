"""Second-order degradation: each step against another implementation, and the whole."""

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
from scipy import ndimage, stats

from pgp_core.errors import PGPError
from pgp_core.training.opencv import opencv
from pgp_core.training.second_order import Kernel, Noise, Pass, Recipe, SecondOrder, apply, steps
from pgp_core.training.second_order.noise import add_noise

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
