"""The LQ canvas and nano's pixel codec, against numpy."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pgp_core.codecs import pixel as pixel_codec
from pgp_core.errors import PGPError
from pgp_core.images import canvas, resampling, sizes
from pgp_core.restorers.finding import CANVASES


def picture(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 16, 32]))
def test_padding_reaches_a_multiple_and_keeps_the_picture(height: int, width: int, multiple: int) -> None:
    rgb = picture(height, width)
    padded = canvas.pad(rgb, multiple)
    for size, new in ((height, padded.shape[-2]), (width, padded.shape[-1])):
        assert new % multiple == 0
        assert size <= new < size + multiple
    assert torch.equal(padded[..., :height, :width], rgb)


@pytest.mark.parametrize("size", [(20, 30), (3, 30), (20, 2), (1, 1), (16, 16)])
def test_padding_reflects_or_repeats_the_edge(size: tuple[int, int]) -> None:
    rgb = picture(*size)
    expected = rgb.numpy()
    for axis in (3, 2):
        extra = -rgb.shape[axis] % 16
        widths = [(0, 0)] * 4
        widths[axis] = (0, extra)
        expected = np.pad(expected, widths, mode="reflect" if extra < rgb.shape[axis] else "edge")
    assert np.array_equal(canvas.pad(rgb, 16).numpy(), expected)


SIZES = (st.integers(1, 300), st.integers(1, 200))


@settings(max_examples=60, deadline=None)
@given(*SIZES, st.sampled_from([1, 1.5, 2, 2.37, 4]), st.sampled_from(sorted(CANVASES)))
def test_a_scale_is_exact(width: int, height: int, scale: float, model: str) -> None:
    pictures = torch.rand(1, 3, height, width)
    out, w, h = canvas.canvas(pictures, sizes.Size(scale=scale), CANVASES[model])
    multiple, border = CANVASES[model].multiple, CANVASES[model].border
    # By fractions: what floats make of the product must not matter.
    exact = [max(1, int(Fraction(n) * Fraction(str(scale)) + Fraction(1, 2))) for n in (width, height)]
    assert [w, h] == exact
    assert out.shape[-1] % multiple == out.shape[-2] % multiple == 0
    assert out.dtype == torch.float32 and 0 <= out.min() <= out.max() <= 1
    large = resampling.resample(pictures, w, h)
    assert torch.equal(canvas.crop(out, w, h), large)
    # The frame is the picture mirrored or its edge repeated, and as narrow as it can be.
    frames = [(total - n) for total, n in zip(out.shape[-2:], (h, w), strict=True)]
    assert all(2 * border <= extra < 2 * border + multiple for extra in frames)
    expected = large.numpy()
    for axis, extra in ((3, frames[1]), (2, frames[0])):
        widths = [(0, 0)] * 4
        widths[axis] = (extra // 2, extra - extra // 2)
        mode = "reflect" if widths[axis][1] < large.shape[axis] else "edge"
        expected = np.pad(expected, widths, mode=mode)
    assert np.array_equal(out.numpy(), expected)


@given(*SIZES, st.integers(1, 800), st.sampled_from(["width", "height", "longest"]))
def test_a_side_is_exact_and_the_other_in_proportion(width: int, height: int, pixels: int, name: str) -> None:
    named = {"width": 0, "height": 1, "longest": 0 if width >= height else 1}[name]
    other = Fraction((height, width)[named] * pixels, (width, height)[named])
    try:
        size = sizes.Size(**{name: pixels}).of(width, height)
    except PGPError:
        assert pixels > 8 * (width, height)[named] or max(1, other) > 8 * (height, width)[named]
        return
    assert size[named] == pixels
    assert size[1 - named] == max(1, int(other + Fraction(1, 2)))


@pytest.mark.parametrize("scale", [0, -1, 0.99, 8.01, 1000, float("nan"), float("inf")])
def test_scales_that_are_none(scale: float) -> None:
    with pytest.raises(PGPError, match=r"the scale is 1 to 8"):
        sizes.Size(scale=scale)


def test_crops_that_are_none() -> None:
    with pytest.raises(PGPError, match="20x10 pixels cannot be cropped to 21x10"):
        canvas.crop(torch.zeros(1, 3, 10, 20), 21, 10)


def test_sizes_that_are_none() -> None:
    with pytest.raises(PGPError, match="longest side is 1 to 16384"):
        sizes.Size(longest=0)
    with pytest.raises(PGPError, match="give one of"):
        sizes.Size(scale=2, width=100)
    with pytest.raises(PGPError, match="give one of"):
        sizes.Size()
    with pytest.raises(PGPError, match="20000x40 would become"):
        sizes.Size(scale=1).of(20000, 40)
    with pytest.raises(PGPError, match="more than 8 times"):
        sizes.Size(longest=4096).of(100, 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_resampling_is_lanczos_in_floats(dtype: torch.dtype) -> None:
    rgb = picture(9, 14).to(dtype)
    out = resampling.resample(rgb, 35, 20)
    for one, plane in zip(out.flatten(0, 1), rgb.float().flatten(0, 1), strict=True):
        expected = _lanczos(_lanczos(plane.double().numpy(), 35).T, 20).T
        np.testing.assert_allclose(one.numpy(), expected.clip(0, 1), atol=2e-6)


def _lanczos(rows: np.ndarray, n: int) -> np.ndarray:
    """Along the last axis, by the formula: window 3, enlarging, cut off at the edges and normalised."""
    size = rows.shape[-1]
    centre = (np.arange(n) + 0.5) * size / n
    distance = np.arange(size)[None] + 0.5 - centre[:, None]
    weights = np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
    return rows @ (weights / weights.sum(1, keepdims=True)).T


def test_resize_is_exact_about_the_size() -> None:
    assert resampling.resize(Image.new("RGB", (7, 5)), 31, 17).size == (31, 17)


@given(st.integers(1, 8), st.integers(1, 8))
def test_the_codec_loses_nothing(height: int, width: int) -> None:
    rgb = picture(4 * height, 4 * width)
    latent = pixel_codec.encode(rgb)
    assert latent.shape == (2, pixel_codec.CHANNELS, height, width)
    assert -1 <= latent.min() <= latent.max() <= 1
    torch.testing.assert_close(pixel_codec.decode(latent), rgb, atol=1e-6, rtol=0)


def test_the_codec_s_order_of_channels() -> None:
    rgb = picture(8, 12)
    blocks = rgb.numpy().reshape(2, 3, 2, 4, 3, 4).transpose(0, 1, 3, 5, 2, 4).reshape(2, 48, 2, 3)
    np.testing.assert_allclose(pixel_codec.encode(rgb).numpy(), blocks * 2 - 1, atol=1e-6)


def test_what_memory_cannot_hold_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 x 10,000 pixels in float32 are 1.2e9 bytes; nothing of that size is made here."""
    large = torch.zeros(1).expand(1, 3, 10_000, 10_000)
    monkeypatch.setattr(canvas, "with_swap", lambda: 3 * 2**30)
    with pytest.raises(PGPError, match=r"10000x10000 take 4\.5 GB of memory at least, and 3\.0 GB are free: choose"):
        canvas.canvas(large, sizes.Size(scale=1.0), CANVASES["pgp-nano"])
    frames = torch.zeros(1).expand(40, 3, 1000, 1000)
    with pytest.raises(PGPError, match=r"40 pictures of 4000x4000 take .* or fewer pictures at a time"):
        canvas.canvas(frames, sizes.Size(scale=4.0), CANVASES["sdxl"])
    # Where nothing says how much there is, nothing is refused.
    monkeypatch.setattr(canvas, "with_swap", lambda: None)
    assert canvas.canvas(torch.rand(1, 3, 5, 5), sizes.Size(scale=1.0), CANVASES["sdxl"])[1:] == (5, 5)


def test_a_hundred_megapixels_times_four_are_refused_before_they_are_made() -> None:
    large = torch.zeros(1).expand(1, 3, 10_000, 10_000)
    with pytest.raises(PGPError, match="10000x10000 would become 40000x40000; 16384 pixels a side are the most"):
        canvas.canvas(large, sizes.Size(scale=4.0), CANVASES["pgp-nano"])
    with pytest.raises(PGPError, match="100000x1 would become 400000x4"):
        sizes.Size(scale=4.0).of(100_000, 1)


@pytest.mark.parametrize(
    ("have", "want", "same"),
    [
        ((480, 640), (1920, 2560), True),
        ((480, 640), (480, 640), True),
        # 123 x 457 enlarged by four, its sides rounded down and up to 8.
        ((457, 123), (1824, 488), True),
        ((457, 123), (1832, 496), True),
        ((480, 640), (640, 480), False),
        ((480, 640), (512, 512), False),
        # With a frame of 32 pixels on each side.
        ((480, 640), (544, 704), False),
        ((1024, 1024), (1024, 1040), False),
        ((1024, 1024), (1024, 1039), True),
    ],
)
def test_proportions_are_the_same_but_for_rounding(have: tuple[int, int], want: tuple[int, int], same: bool) -> None:
    assert sizes.same_proportions(have, want, 8) is same
    assert sizes.same_proportions(have[::-1], want[::-1], 8) is same
