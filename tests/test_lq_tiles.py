"""LQ features in tiles are those of the whole canvas."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import rounding
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow_encoder import ENCODER, draw, make
from narrow_guidance import TWO_SITES

from pgp_core.guidance.lq_adapter import LQAdapter
from pgp_core.guidance.lq_encoder import plain_attention, sliced_attention
from pgp_core.guidance.lq_tiles import LQTiles
from pgp_core.guidance.module import Guidance, GuidanceSpec, Site


def no_words(_: str) -> None:
    raise AssertionError("there is nothing to say")


# -- adapter -----------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    tile=st.integers(16, 80),
    levels=st.integers(1, 4),
    batch=st.integers(1, 2),
)
@torch.no_grad()
def test_the_adapters_tiles_are_exact(height: int, width: int, tile: int, levels: int, batch: int) -> None:
    torch.manual_seed(levels)
    # In float64, so that no rounding hides a halo that is a little short.
    adapter = LQAdapter((4, 6, 8, 8), 4, levels).double()
    lq = draw(batch, 3, height, width).double()
    tiles = LQTiles(adapter_tile=tile, say=no_words)
    made = tiles.adapter(adapter, lq, range(levels), lambda x: x * 4 - 2)
    for level, whole in enumerate(adapter(lq * 4 - 2)):
        torch.testing.assert_close(made[level], whole, atol=1e-12, rtol=1e-12)


@torch.no_grad()
def test_full_size_halos_and_that_they_are_not_too_wide() -> None:
    with torch.device("meta"):
        halos = [LQAdapter(levels=n).halo for n in (1, 2, 3, 4)]
    # Three 3x3 convolutions; two more; the five positions are three of half the size, then two more each.
    assert halos == [3, 5, 10, 14]

    class Short(LQAdapter):
        halo = 13 // 2 * 2  # type: ignore[assignment]

    torch.manual_seed(0)
    adapter = Short((4, 4, 4, 4), 4, 4).double()
    lq = draw(1, 3, 160, 160).double()
    (made,) = LQTiles(adapter_tile=64).adapter(adapter, lq, {3}).values()
    assert float((made - adapter(lq)[3]).abs().max()) > 1e-9, "what the convolutions see further out is missing"


def test_sites_share_levels_and_only_those_that_are_used_are_kept() -> None:
    guidance = make(TWO_SITES)
    lq = draw(1, 3, 100, 75)
    kept: list[int] = []

    class Noting(LQTiles):
        def adapter(self, *args: object) -> dict[int, torch.Tensor]:
            made = super().adapter(*args)  # type: ignore[arg-type]
            kept.extend(made)
            return made

    with torch.no_grad():
        for a, b in zip(guidance.features(lq), guidance.features(lq, None, Noting(adapter_tile=32)), strict=True):
            rounding.assert_same(a, b, rounding.NETWORK)
    assert kept == [0, 2]


# -- encoder -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (61, 67), (16, 200)])
@pytest.mark.parametrize("spec", [ENCODER, TWO_SITES], ids=["encoder", "adapter"])
@torch.no_grad()
def test_nothing_changes_where_there_are_no_more_pixels_than_in_a_tile(
    size: tuple[int, int], spec: GuidanceSpec
) -> None:
    guidance, lq = make(spec), draw(1, 3, *size)
    tiles = LQTiles(tile=64, adapter_tile=64, say=no_words)
    for whole, tiled in zip(guidance.features(lq), guidance.features(lq, None, tiles), strict=True):
        assert torch.equal(whole, tiled)


def encoder_of(channels: tuple[int, ...], blocks: int = 2, **factory: Any) -> Guidance:
    torch.manual_seed(1)
    scale = 2 ** (len(channels) - 1)
    site = Site("conv_in", 40, 0, scale, "alignment")
    spec = GuidanceSpec(base="test", sites=(site,), encoder_channels=channels, encoder_blocks=blocks)
    return Guidance(spec, **factory).eval()


def half_flat(height: int, width: int) -> torch.Tensor:
    """Noise, and at the left a grey area with next to nothing in it."""
    lq = draw(1, 3, height, width)
    lq[..., : width // 2] = 0.5 + (lq[..., : width // 2] - 0.5) / 500
    return lq


@pytest.mark.parametrize(
    ("channels", "blocks", "tile"),
    # Two levels; all kinds of stages; more channels from level to level.
    [((32, 32), 2, 64), ((32, 32, 32, 32), 2, 96), ((32, 64, 64), 1, 128)],
)
@pytest.mark.parametrize("size", [(97, 131), (61, 233)])
@torch.no_grad()
def test_the_encoders_tiles_are_exact(channels: tuple[int, ...], blocks: int, tile: int, size: tuple[int, int]) -> None:
    # In float64, so that no rounding hides a halo that is a little short.
    guidance = encoder_of(channels, blocks).double()
    lq = half_flat(*(2 * n if len(channels) > 2 else n for n in size)).double()
    # A batch is larger than a tile: each picture has its own statistics.
    both = torch.cat((lq, lq.flip(-1) / 3))
    passes: list[int] = []
    tiles = LQTiles(tile=tile, say=no_words, done=lambda: passes.append(1))
    (whole,), (tiled,) = guidance.features(both), guidance.features(both, None, tiles)
    torch.testing.assert_close(tiled, whole, atol=1e-12, rtol=1e-12)
    assert len(passes) > 2 * 4


@torch.no_grad()
def test_full_size_halos_and_what_rests() -> None:
    with torch.device("meta"):
        guidance = Guidance(GuidanceSpec(sites=(Site("conv_in", 320, 0, 8, "alignment"),)))
    stages = [*guidance.lq_encoder.stages(), guidance.alignment.stage()]
    # Convolutions of 3x3 in a row; the attention and the second block of the middle are stages of their own.
    assert [s.halo for s in stages] == [6, 5, 2, 3, 2, 2, 2, 0, 2, 2]
    assert [s.stride for s in stages] == [2, 2, 1, 2, 1, 1, 1, 1, 1, 1]
    assert [s.channels for s in stages] == [128, 256] + [512] * 8
    # Numbers per pixel that rest before and after each stage.
    scale, before, most = 1, 0.0, 0.0
    for stage, channels in zip(stages, (128, 256, *[512] * 7, 320), strict=True):
        scale *= stage.stride
        after = channels / scale**2
        before, most = after, max(most, before + after)
    assert most == 48


def gradient(x: torch.Tensor) -> float:
    return sum(float(x.diff(dim=dim).pow(2).mean()) for dim in (-2, -1))


@torch.no_grad()
def test_a_flat_tile_is_not_stretched() -> None:
    guidance, lq = encoder_of((32, 32, 32)), half_flat(256, 512)
    (whole,), (tiled,) = guidance.features(lq), guidance.features(lq, None, LQTiles(tile=128))
    (alone,) = guidance.features(lq[..., :128, :128])
    flat = (..., slice(8, 24), slice(8, 24))
    assert gradient(alone[flat]) > 5 * gradient(whole[flat]), "nothing here would be stretched"
    assert 1 / 1.1 < gradient(tiled[flat]) / gradient(whole[flat]) < 1.1
    torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_attention_of_a_canvas_that_is_large_for_its_tiles_looks_at_fewer_positions() -> None:
    """Keys take no more numbers than a tile's first map; what is attended to is spread over the whole canvas."""
    guidance, lq = encoder_of((32, 32)), draw(1, 3, 150, 301)
    said: list[str] = []
    (tiled,) = guidance.features(lq, None, LQTiles(tile=64, say=said.append))
    assert len(said) == 1
    assert "one position in 4;" in said[0]

    class Thinned(torch.nn.Module):
        def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return plain_attention(q, k[..., ::2, ::2], v[..., ::2, ::2])

    (exact,) = guidance.features(lq)
    guidance.lq_encoder.mid_block.attentions[0].attention = Thinned()  # type: ignore[union-attr,operator,index]
    (expected,) = guidance.features(lq)
    torch.testing.assert_close(tiled, expected, atol=1e-4, rtol=1e-4)
    assert 1e-4 < float((tiled - exact).pow(2).mean().sqrt() / exact.std()) < 0.1


def test_sliced_attention_is_attention() -> None:
    q, k, v = draw(2, 8, 5, 7), draw(2, 8, 9, 7, seed=1), draw(2, 8, 9, 7, seed=2)
    with patch("pgp_core.guidance.lq_encoder._SCORES", 200):
        torch.testing.assert_close(sliced_attention(q, k, v), plain_attention(q, k, v), atol=1e-5, rtol=1e-5)


class Casting:
    """Layers that cast their weights to what comes in, and that give their affine part to nobody, as ComfyUI's do."""

    class Conv2d(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._conv_forward(x, self.weight.to(x), self.bias.to(x) if self.bias is not None else None)

    class Linear(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, self.weight.to(x), self.bias.to(x))

    class GroupNorm(torch.nn.GroupNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            # A patch that has not been applied to the weights yet.
            return F.group_norm(x, self.num_groups, 2 * self.weight.to(x), self.bias.to(x) + 0.5, self.eps)

    LayerNorm = torch.nn.LayerNorm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_and_layers_that_cast(dtype: torch.dtype) -> None:
    casting, lq = encoder_of((32, 32, 32), operations=Casting), half_flat(130, 260)
    for name, parameter in casting.lq_encoder.named_parameters():
        if "norm" in name:
            parameter.add_(torch.randn_like(parameter) / 4)
    (exact,) = casting.features(lq)
    (whole,) = casting.features(lq, dtype)
    (tiled,) = casting.features(lq, dtype, LQTiles(tile=128, say=no_words))
    assert tiled.dtype == whole.dtype == dtype
    error, rounding = ((x.float() - exact).pow(2).mean().sqrt() for x in (tiled, whole))
    assert error <= 1.5 * rounding + 1e-5 * exact.std()
    if dtype == torch.float32:
        torch.testing.assert_close(tiled, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("where", ["down_blocks.0.resnets.0.conv1", "mid_block.resnets.1.conv2"])
@torch.no_grad()
def test_a_stage_that_overflows_in_half_precision_is_run_again_in_float32(where: str) -> None:
    casting, lq = encoder_of((32, 32, 32), operations=Casting), draw(1, 3, 130, 260)
    casting.lq_encoder.get_submodule(where).weight.mul_(1e6)
    (exact,) = casting.features(lq)
    said: list[str] = []
    tiles = LQTiles(tile=128, say=said.append)
    for _ in range(2):
        (tiled,) = casting.features(lq, torch.float16, tiles)
        assert tiled.dtype == torch.float32
        assert (tiled - exact).pow(2).mean().sqrt() < 0.02 * exact.std()
    assert said == ["the LQ encoder overflowed in float16; what overflows is run again in float32"]


@torch.no_grad()
def test_a_batch_gets_what_each_picture_has_alone() -> None:
    guidance, lq = make(), draw(3, 3, 90, 100)
    for tile in (64, 100, 256):
        (together,) = guidance.features(lq, None, LQTiles(tile=tile))
        for i in range(3):
            (alone,) = guidance.features(lq[i : i + 1], None, LQTiles(tile=tile))
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)
