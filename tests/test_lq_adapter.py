"""The LQ adapter against diffusers' T2I-Adapter of the same kind."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pgp_core.guidance.lq_adapter import LQAdapter

#: diffusers' full_adapter_xl changes channels at the second and third level only.
CHANNELS = (8, 16, 24, 24)


def pair(channels: tuple[int, ...] = CHANNELS, levels: int = 4, unshuffle: int = 16) -> tuple[Any, LQAdapter]:
    """diffusers' adapter and ours with the same weights."""
    from diffusers import T2IAdapter

    torch.manual_seed(0)
    theirs = T2IAdapter(
        in_channels=3,
        channels=list(channels),
        num_res_blocks=2,
        downscale_factor=unshuffle,
        adapter_type="full_adapter_xl",
    ).eval()
    ours = LQAdapter(channels, unshuffle, levels).eval()
    weights = {k.removeprefix("adapter."): v for k, v in theirs.state_dict().items()}
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert not missing
    assert all(int(k.split(".")[1]) >= levels for k in unexpected if k.startswith("body."))
    return theirs, ours


def picture(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", [CHANNELS, (8, 8, 8, 8)])
@pytest.mark.parametrize("size", [(64, 96), (48, 80)])
@torch.no_grad()
def test_all_levels_are_diffusers(channels: tuple[int, ...], size: tuple[int, int]) -> None:
    theirs, ours = pair(channels)
    expected, result = theirs(picture(*size)), ours(picture(*size))
    assert len(result) == len(expected) == 4
    for a, b in zip(result, expected, strict=True):
        torch.testing.assert_close(a, b)


@torch.no_grad()
def test_a_smaller_unshuffle() -> None:
    theirs, ours = pair(unshuffle=4)
    for a, b in zip(ours(picture(20, 12)), theirs(picture(20, 12)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("levels", [1, 2, 3])
@torch.no_grad()
def test_only_the_first_levels(levels: int) -> None:
    theirs, ours = pair(levels=levels)
    assert len(ours.body) == levels
    for a, b in zip(ours(picture(64, 64)), theirs(picture(64, 64))[:levels], strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [(50, 70), (33, 16), (1, 1), (17, 100)])
@torch.no_grad()
def test_any_size_as_if_its_edge_were_repeated(size: tuple[int, int]) -> None:
    theirs, ours = pair()
    lq = picture(*size)
    rows = torch.arange(-(-size[0] // 16) * 16).clamp(max=size[0] - 1)
    columns = torch.arange(-(-size[1] // 16) * 16).clamp(max=size[1] - 1)
    result = ours(lq)
    for a, b in zip(result, theirs(lq[:, :, rows][..., columns]), strict=True):
        torch.testing.assert_close(a, b)
    for features, scale in zip(result, (16, 16, 32, 32), strict=True):
        assert features.shape[-2:] == (-(-size[0] // scale), -(-size[1] // scale))


@torch.no_grad()
def test_levels_with_channels_of_their_own() -> None:
    """Where diffusers' class cannot go: every level may change the channels."""
    features = LQAdapter((4, 6, 8, 10), 4, 4)(picture(16, 16))
    assert [f.shape[1] for f in features] == [4, 6, 8, 10]
