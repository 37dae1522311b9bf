"""Small maps of features in a report, against the features themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate

from pgp_core.redundancy.maps import LONGEST, MOST, FeatureMap, shrunk
from pgp_core.redundancy.recorder import Recorder
from pgp_core.redundancy.report import MODULES


@torch.no_grad()
def test_the_recorder_keeps_what_the_features_look_like(
    make_unet: Callable[..., Any], call_unet: Callable[..., Any]
) -> None:
    unet = make_unet()
    seen: dict[str, torch.Tensor] = {}
    for short, name in MODULES.items():
        unet.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, short=short: seen.__setitem__(short, out if torch.is_tensor(out) else out[0])
        )
    recorder = Recorder(unet)
    with recorder.call(951.0, (1, 0)):
        call_unet(unet, batch=2, size=(24, 16))
    for short, features in seen.items():
        (kept,) = recorder.feature_maps()[short].values()
        # Of [uncond, cond] the second; small enough to be kept as it is.
        mean = features[1].mean(0)
        assert kept.values().shape == mean.shape
        assert torch.allclose(kept.values(), mean, atol=float(mean.max() - mean.min()) / 255)


@torch.no_grad()
def test_only_the_first_picture_and_so_many_timesteps_are_kept(
    make_unet: Callable[..., Any], call_unet: Callable[..., Any]
) -> None:
    unet = make_unet()
    recorder = Recorder(unet)
    with recorder.call(999.0):
        call_unet(unet, seed=0)
    first = recorder.feature_maps()["E_1"]["999"]
    with recorder.call(999.0):
        call_unet(unet, seed=1)
    with recorder.call(998.0, (1,)):
        call_unet(unet)
    assert recorder.feature_maps()["E_1"] == {"999": first}
    for t in range(900, 900 + MOST):
        with recorder.call(float(t)):
            call_unet(unet, size=(8, 8))
    assert len(recorder.feature_maps()["B_4"]) == MOST


def test_large_maps_are_shrunk_and_odd_ones_too() -> None:
    features = torch.randn(3, 130, 97, generator=torch.Generator().manual_seed(0))
    small = shrunk(features)
    assert small.shape == (LONGEST, round(97 * LONGEST / 130))
    expected = interpolate(features.mean(0)[None, None], small.shape, mode="area")[0, 0]
    assert torch.allclose(small, expected, atol=1e-5)
    assert shrunk(torch.zeros(2, 1, 400)).shape == (1, LONGEST)


@pytest.mark.parametrize("value", [0.0, -3e38])
def test_a_flat_map_and_the_largest_numbers(value: float) -> None:
    plane = torch.full((4, 5), value)
    plane[0, 0] = -value
    again = FeatureMap.from_json(FeatureMap.of(plane).to_json())
    assert torch.equal(again.values().isfinite(), torch.ones(4, 5, dtype=torch.bool))
    assert torch.allclose(again.values(), plane)


@torch.no_grad()
def test_features_that_are_not_finite_are_no_map(make_unet: Callable[..., Any], call_unet: Callable[..., Any]) -> None:
    unet = make_unet()
    unet.mid_block.resnets[1].conv2.bias[0] = torch.nan
    recorder = Recorder(unet)
    with recorder.call(1.0):
        call_unet(unet)
    maps = recorder.feature_maps()
    assert not maps["B_4"] and maps["E_1"]
