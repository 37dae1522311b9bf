"""Strips of pictures: feature maps and phases, what they show and refuse."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from drawn_reports import MAPS, PICTURES, module_features, report

from pgp_core.errors import PictureError
from pgp_core.plots import feature_maps, module_maps, phase_strip, visible_phase


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 60000.0])
def test_feature_map_is_dark_where_small_and_bright_where_large(dtype: torch.dtype, scale: float) -> None:
    features = torch.zeros(8, 2, 2, dtype=dtype)
    features[:, 0, 0], features[:, 1, 1] = -scale, scale
    picture = feature_maps([("t", features)]).astype(float).mean(-1)
    size = 1024 - 40
    top = picture.shape[0] - 20 - size
    at = [[picture[top + y * size // 4, 20 + x * size // 4] for x in (1, 3)] for y in (1, 3)]
    assert at[0][0] < at[0][1] == at[1][0] < at[1][1]


def test_feature_maps_of_any_kind() -> None:
    odd = [
        ("flat", torch.zeros(3, 8, 8)),
        ("plane", torch.rand(5, 9)),
        ("one", torch.ones(1, 1)),
        ("nan", torch.tensor([[1.0, float("nan")], [float("-inf"), 2.0]])),
        ("long", torch.rand(2, 1, 500)),
        ("tall", torch.rand(300, 2, requires_grad=True)),
        ("largest", torch.tensor([[3e38, -3e38]])),
    ]
    assert feature_maps(odd, columns=3).shape[1] == 1024


@pytest.mark.parametrize("shape", [(4,), (1, 2, 3, 4), (0, 4, 4), (3, 0, 2)])
def test_features_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match=r"features must have the shape"):
        feature_maps([("t", torch.zeros(shape))])


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)])
def test_pictures_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(PictureError, match=r"pictures must have the shape"):
        phase_strip(torch.zeros(shape))


def test_columns() -> None:
    for draw in lambda n: feature_maps(MAPS[:4], columns=n), lambda n: phase_strip(PICTURES, columns=n):
        assert draw(1).shape[0] > draw(2).shape[0] > draw(3).shape[0]
        with pytest.raises(PictureError, match="at least one column"):
            draw(0)


def test_module_maps_have_a_row_a_module_and_a_column_a_timestep(drawn: list[Any]) -> None:
    maps = module_features(["E_1", "D_2"])
    maps["D_2"].pop("951")
    module_maps(report(maps=maps))
    (figure,) = drawn
    captions = [t.get_text() for t in figure.texts[1:]]
    # Twenty timesteps become five, from the first to the last.
    assert captions[:5] == [f"E_1, t = {t}" for t in (951, 701, 451, 251, 1)]
    assert captions[5] == "D_2, t = 951 (NaN)"
    assert len(captions) == 10
    (image,) = figure.axes[0].get_images()
    shades = image.get_array().mean(-1)[4]
    assert all(a < b for a, b in itertools.pairwise(shades))


def test_pictures_of_different_sizes_stand_in_one_strip() -> None:
    strip = phase_strip([torch.rand(3, 16, 24), torch.rand(3, 40, 20)])
    assert strip.shape[1] == 1024


def test_visible_phase_is_the_formula() -> None:
    """Phase alone, in double precision over the whole spectrum; the same place of the sorted sizes is the scale."""
    spectrum = np.fft.fft2(PICTURES.double().numpy(), norm="ortho")
    phase = np.fft.ifft2(np.exp(1j * np.angle(spectrum)), norm="ortho").real
    for shown, plane in zip(visible_phase(PICTURES), phase, strict=True):
        reach = np.sort(np.abs(plane).ravel())[int(np.ceil(0.98 * plane.size)) - 1]
        assert np.abs(shown.numpy() - np.clip(0.5 + plane / (2 * reach), 0, 1)).max() < 1e-4


def test_black_pictures_have_a_grey_phase_and_odd_values_do_no_harm() -> None:
    assert (visible_phase(torch.zeros(1, 3, 8, 9)) == 0.5).all()
    wild = torch.full((1, 3, 5, 7), float("nan"))
    assert visible_phase(wild).isfinite().all()
    assert visible_phase(torch.rand(1, 3, 6, 6).half()).dtype == torch.float32
    assert phase_strip(wild).shape[1] == 1024


def test_the_picture_stands_left_and_its_phase_right() -> None:
    picture = phase_strip(torch.ones(1, 3, 32, 32) * torch.tensor([1.0, 0.0, 0.0])[:, None, None])
    middle = picture.shape[0] // 2
    assert tuple(picture[middle, 256]) == (255, 0, 0)
    assert tuple(picture[middle, 768]) != (255, 0, 0)
