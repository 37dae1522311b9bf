"""The LQ canvas and nano's pixel codec, against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pgp_core import canvas, pixel_codec


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


def test_resize_is_exact_about_the_size() -> None:
    assert canvas.resize(Image.new("RGB", (7, 5)), 31, 17).size == (31, 17)


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
