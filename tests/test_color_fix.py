"""The colour fix against the authors' definitions, written with convolutions and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pgp_core.choices import COLOR_FIXES
from pgp_core.errors import PGPError
from pgp_core.images.color_fix import color_fix

KERNEL = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]], dtype=torch.float64) / 16


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def decompose(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """High and low frequencies, level by level, as the authors' wavelet_decomposition does."""
    high = torch.zeros_like(x)
    for level in range(5):
        r = 2**level
        padded = F.pad(x, (r, r, r, r), mode="replicate")
        low = F.conv2d(padded, KERNEL.expand(x.shape[1], 1, 3, 3), dilation=r, groups=x.shape[1])
        high = high + (x - low)
        x = low
    return high, x


@pytest.mark.parametrize("size", [(64, 80), (7, 5), (1, 1), (33, 1)])
def test_wavelet_is_the_authors(size: tuple[int, int]) -> None:
    picture, reference = draw(0, 2, 3, *size), draw(1, 2, 3, *size)
    expected = decompose(picture.double())[0] + decompose(reference.double())[1]
    fixed = color_fix(picture, reference)
    np.testing.assert_allclose(fixed.numpy(), expected.clamp(0, 1).numpy(), atol=2e-6)


@pytest.mark.parametrize("size", [(64, 80), (300, 5), (1, 2)])
def test_adain_is_the_authors(size: tuple[int, int]) -> None:
    picture, reference = draw(2, 2, 3, *size), 0.5 * draw(3, 2, 3, *size)
    a, b = picture.double().numpy(), reference.double().numpy()

    def std(x: np.ndarray) -> np.ndarray:
        return np.sqrt(x.var((2, 3), ddof=1, keepdims=True) + 1e-5)

    expected = (a - a.mean((2, 3), keepdims=True)) / std(a) * std(b) + b.mean((2, 3), keepdims=True)
    fixed = color_fix(picture, reference, "adain")
    np.testing.assert_allclose(fixed.numpy(), expected.clip(0, 1), atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 120), st.integers(1, 40), st.integers(1, 130), st.sampled_from(["wavelet", "adain"]))
def test_strips_are_the_whole_bit_for_bit(height: int, width: int, strip: int, method: str) -> None:
    picture, reference = draw(4, 1, 3, height, width), draw(5, 1, 3, height, width)
    assert torch.equal(color_fix(picture, reference, method, strip), color_fix(picture, reference, method, 10**6))


@pytest.mark.parametrize("threads", [1, 2])
def test_strips_of_a_large_picture(threads: int) -> None:
    """Large enough that PyTorch splits its work among threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        picture, reference = draw(6, 1, 3, 600, 900), draw(7, 1, 3, 600, 900)
        for method in ("wavelet", "adain"):
            whole = color_fix(picture, reference, method, 10**6)
            assert torch.equal(color_fix(picture, reference, method, 97), whole)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("method", COLOR_FIXES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_flat_pictures_stay_flat(method: str, dtype: torch.dtype) -> None:
    colour = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, 40, 50)
    fixed = color_fix(colour.to(dtype), colour.to(dtype), method)
    assert fixed.dtype == torch.float32
    assert (fixed - colour).abs().max() < 1 / 255


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_a_cast_is_taken_away(method: str) -> None:
    reference = 0.25 + 0.5 * draw(8, 1, 3, 96, 96)
    cast = (reference * 0.9 + torch.tensor([0.06, 0.0, -0.04]).view(1, 3, 1, 1)).clamp(0, 1)
    fixed = color_fix(cast, reference, method)
    assert (fixed.mean((2, 3)) - reference.mean((2, 3))).abs().max() < 1 / 255
    assert torch.equal(color_fix(cast, reference, "none"), cast)


def test_saturated_fields_keep_their_colour() -> None:
    """A chart of saturated fields; the restored picture is shifted as bad colour handling does."""
    fields = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, 0.6], [0.8, 0, 0.1], [0, 0.2, 1], [1, 1, 0]])
    chart = fields.T.reshape(3, 2, 3).repeat_interleave(96, 1).repeat_interleave(96, 2)[None]
    shifted = (chart * 0.94 + 0.03).roll(1, 1) * 0.1 + (chart * 0.94 + 0.03) * 0.9
    fixed = color_fix(shifted, chart)
    for row in range(2):
        for column in range(3):
            inner = (..., slice(96 * row + 32, 96 * row + 64), slice(96 * column + 32, 96 * column + 64))
            moved = (fixed[inner].mean((2, 3)) - chart[inner].mean((2, 3))).abs().max()
            assert moved < 2 / 255, (row, column, float(moved))


def test_each_picture_of_a_batch_is_its_own() -> None:
    pictures, references = draw(9, 3, 3, 20, 30), draw(10, 3, 3, 20, 30)
    for method in ("wavelet", "adain"):
        batch = color_fix(pictures, references, method)
        for i in range(3):
            assert torch.equal(batch[i : i + 1], color_fix(pictures[i : i + 1], references[i : i + 1], method))
        one = color_fix(pictures, references[:1], method)
        assert torch.equal(one[2:], color_fix(pictures[2:], references[:1], method))


def test_what_does_not_fit_is_named() -> None:
    a = torch.zeros(1, 3, 8, 8)
    with pytest.raises(PGPError, match="no colour fix 'lab'"):
        color_fix(a, a, "lab")
    with pytest.raises(PGPError, match="differ"):
        color_fix(a, a[..., :4], "wavelet")
    with pytest.raises(PGPError, match="differ"):
        color_fix(a.expand(3, -1, -1, -1), a.expand(2, -1, -1, -1), "wavelet")
