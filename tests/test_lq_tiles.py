"""LQ features in tiles are those of the whole canvas; memory is a tile's, beside what rests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import memory
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow_guidance import TWO_SITES

from pgp_core.errors import PGPError
from pgp_core.guidance import Guidance, GuidanceSpec, Site
from pgp_core.lq_adapter import LQAdapter
from pgp_core.lq_encoder import plain_attention, sliced_attention
from pgp_core.lq_tiles import LQTiles
from pgp_core.lq_tiles.stages import Norm, Stage

#: Two pixels per position, so that tiles of 32 positions, the smallest that are halved to, are small.
ENCODER = GuidanceSpec(base="test", sites=(Site("conv_in", 32, 0, 2, "alignment"),), encoder_channels=(32, 32))


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def make(spec: GuidanceSpec = ENCODER) -> Guidance:
    torch.manual_seed(1)
    return Guidance(spec).eval()


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
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
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
    with patch("pgp_core.lq_encoder._SCORES", 200):
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


# -- what computes, and where ------------------------------------------------------------------------------


def pointwise(rgb: torch.Tensor) -> torch.Tensor:
    """An encoder of half the size that looks nowhere else."""
    height, width = (n + n % 2 for n in rgb.shape[-2:])
    pad = (0, width - rgb.shape[-1], 0, height - rgb.shape[-2])
    return torch.nn.functional.pad(rgb, pad, mode="replicate")[..., ::2, ::2]


def alone(encode: Callable[[torch.Tensor], torch.Tensor]) -> list[Stage]:
    """It as a stage."""

    def run(x: torch.Tensor, _: Norm) -> torch.Tensor:
        return encode(x)

    return [Stage(run, 3, 0, 2)]


def limited(most: int, calls: list[tuple[int, ...]]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same with memory for so many pixels."""

    def encode(rgb: torch.Tensor) -> torch.Tensor:
        calls.append(tuple(rgb.shape))
        if rgb.shape[0] * rgb.shape[-2] * rgb.shape[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return pointwise(rgb)

    return encode


def test_out_of_memory_halves_the_tile_says_so_once_and_goes_on() -> None:
    said: list[str] = []
    freed: list[int] = []
    calls: list[tuple[int, ...]] = []
    lq = draw(1, 3, 601, 500)
    tiles = LQTiles(tile=1024, say=said.append, free=lambda: freed.append(1))
    encode = limited(140 * 140, calls)
    made = tiles.encoder(encode, alone(encode), lq)
    torch.testing.assert_close(made, pointwise(lq * 2 - 1), atol=1e-6, rtol=1e-6)
    # The whole, then from its 301 positions 148 and 72 of two pixels.
    assert said == ["memory ran out in the LQ encoder: it goes on in tiles of 144 x 144 pixels"]
    assert len(freed) == 2
    # The next picture begins with what fitted.
    before = len(calls)
    tiles.encoder(encode, alone(encode), lq)
    assert all(h * w <= 140 * 140 for _, _, h, w in calls[before:])
    assert len(said) == 1


@torch.no_grad()
def test_halved_tiles_are_exact_too() -> None:
    guidance, lq = make(), draw(1, 3, 97, 131)
    said: list[str] = []
    freed: list[int] = []

    def full(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        # After the attention, when much has been computed.
        if inputs[0].shape[-1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")

    (whole,) = guidance.features(lq)
    guidance.lq_encoder.mid_block.resnets[1].conv2.register_forward_pre_hook(full)  # type: ignore[union-attr,operator,index]
    tiles = LQTiles(tile=112, say=said.append, free=lambda: freed.append(1))
    (tiled,) = guidance.features(lq, None, tiles)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)
    assert said == ["memory ran out in the LQ encoder: it goes on in tiles of 64 x 64 pixels"]
    assert freed == [1]


def test_out_of_memory_in_the_adapter() -> None:
    said: list[str] = []
    torch.manual_seed(0)
    adapter = LQAdapter((4, 4, 4, 4), 4, 4)
    lq = draw(1, 3, 500, 500)
    with torch.no_grad():
        whole = adapter(lq)[3]

    def ranged(rgb: torch.Tensor) -> torch.Tensor:
        if rgb.shape[-1] > 420:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)")
        return rgb

    (made,) = LQTiles(say=said.append).adapter(adapter, lq, {3}, ranged).values()
    torch.testing.assert_close(made, whole, atol=1e-6, rtol=1e-6)
    assert len(said) == 1
    assert "LQ adapter" in said[0]


def test_pictures_of_a_batch_are_taken_one_by_one_before_they_are_cut() -> None:
    calls: list[tuple[int, ...]] = []
    LQTiles(tile=256).encoder(limited(128 * 128, calls), alone(pointwise), draw(4, 3, 128, 128))
    assert calls == [(4, 3, 128, 128)] + [(1, 3, 128, 128)] * 4


def test_what_is_no_lack_of_memory_is_not_tried_again() -> None:
    def wrong(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        LQTiles(tile=256, say=no_words).encoder(wrong, alone(wrong), draw(1, 3, 300, 300))
    with pytest.raises(torch.OutOfMemoryError):
        LQTiles(tile=256, say=no_words).encoder(limited(10, []), alone(limited(10, [])), draw(1, 3, 300, 300))
    with pytest.raises(PGPError, match="cannot overlap"):
        LQTiles(tile=4).encoder(pointwise, alone(pointwise), draw(1, 3, 300, 300))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [(100, 100), (100, 260)])
def test_a_tile_that_overflows_in_half_precision_is_run_again_in_float32(
    size: tuple[int, int], dtype: torch.dtype
) -> None:
    said: list[str] = []
    dtypes: list[torch.dtype] = []
    lq = draw(1, 3, *size)
    lq[..., 2:4, 4:6] = 1.0
    lq[..., 60:62, 80:82] = 1.0

    def encode(rgb: torch.Tensor) -> torch.Tensor:
        dtypes.append(rgb.dtype)
        out = pointwise(rgb)
        return torch.where(out >= 1, float("inf"), out) if rgb.dtype == dtype else out

    made = LQTiles(tile=128, say=said.append).encoder(encode, alone(encode), lq, dtype)
    torch.testing.assert_close(made, pointwise(lq * 2 - 1), atol=2e-2, rtol=0)
    name = str(dtype).removeprefix("torch.")
    assert said == [f"the LQ encoder overflowed in {name}; what overflows is run again in float32"]
    # The whole, or three pieces of a canvas whose first had overflowed.
    assert dtypes == [dtype, *[torch.float32] * (1 if size[1] == 100 else 3)]
    # Where it does not overflow, features are in what computed them.
    fine = LQTiles(tile=128, say=no_words).encoder(pointwise, alone(pointwise), lq, dtype)
    assert fine.dtype == dtype
    torch.testing.assert_close(fine.float(), pointwise(lq * 2 - 1), atol=2e-2, rtol=0)


@torch.no_grad()
def test_the_canvas_stays_where_it_is_and_features_rest_in_memory(device: torch.device) -> None:
    both = [make(spec) for spec in (ENCODER, TWO_SITES)]
    lq = draw(1, 3, 130, 200)
    expected = [f for g in both for f in g.features(lq)]
    seen: list[tuple[str, int]] = []

    def note(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((inputs[0].device.type, inputs[0].numel()))

    for guidance in both:
        guidance.to(device)
        (guidance.lq_encoder.conv_in if guidance is both[0] else guidance.lq_adapter).register_forward_pre_hook(note)
    cut = [f for g in both for f in g.features(lq, None, LQTiles(device, tile=96, adapter_tile=32))]
    assert all(kind == device.type and n < lq.numel() for kind, n in seen)
    whole = [f for g in both for f in g.features(lq, None, LQTiles(device))]
    chosen = [f for g in both for f in g.features(lq, None, LQTiles(device, rest="cpu"))]
    assert all(f.device.type == "cpu" for f in (*cut, *chosen))
    assert all(f.device.type == device.type for f in whole)
    for a, b, c in zip(expected, whole, chosen, strict=True):
        torch.testing.assert_close(b.cpu(), a, atol=1e-4, rtol=1e-4)
        assert torch.equal(b.cpu(), c)
    for a, b in zip(expected, cut, strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)


def test_it_can_be_stopped_after_any_tile() -> None:
    done: list[int] = []

    def stop() -> None:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LQTiles(tile=64, done=stop).encoder(pointwise, alone(pointwise), draw(1, 3, 300, 300))
    assert len(done) == 3


# -- memory ------------------------------------------------------------------------------------------------

MEASURED = """
import sys, torch
sys.path.insert(0, {support!r})
import memory
from pgp_core.guidance import Guidance, GuidanceSpec, Site
from pgp_core.lq_tiles import LQTiles
torch.set_num_threads(1)
site = Site("conv_in", 32, 0, 4, "alignment"), Site("down", 32, 3, 32)
guidance = Guidance(GuidanceSpec(sites=site, encoder_channels=(32, 32, 32), encoder_blocks=1, channels=(32,) * 4))
side = int(sys.argv[1])
lq = torch.rand(1, 3, side, side)
features, taken = memory.measure(
    lambda: guidance.features(lq, None, LQTiles(tile=128, adapter_tile=256)), __import__("pathlib").Path("none")
)
print(taken.peak)
"""


@pytest.mark.skipif(not memory.available(), reason="reads Linux's peak memory")
def test_memory_is_a_tiles() -> None:
    """Four times the pixels take what rests between stages, and no more. Each in a fresh process."""
    script = MEASURED.format(support=str(Path(__file__).parent / "support"))

    def taken(side: int) -> int:
        out = subprocess.run([sys.executable, "-c", script, str(side)], capture_output=True, text=True, check=True)
        return int(out.stdout)

    # Maps of 32 channels at a half and a quarter of the size: 8 + 2 numbers per pixel, of 4 bytes. The encoder on the
    # whole of the larger one would take 400 MB more.
    resting = 40 * (1024**2 - 512**2)
    assert taken(1024) - taken(512) <= 1.2 * resting + 8e6
