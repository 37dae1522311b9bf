"""LQ features in tiles: the adapter's are exact, the encoder's close and without seams; memory is a tile's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import memory
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from narrow_guidance import TWO_SITES

from pgp_core.errors import PGPError
from pgp_core.guidance import Guidance, GuidanceSpec, Site
from pgp_core.lq_adapter import LQAdapter
from pgp_core.lq_tiles import LQTiles

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


@torch.no_grad()
def test_an_encoder_without_norms_and_attention_is_not_changed_at_all() -> None:
    """Its convolutions see 14 positions far, less than the quarter of the overlap that counts nothing."""
    guidance = make()
    for module in guidance.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.GroupNorm):
                setattr(module, name, torch.nn.Identity())
    guidance.lq_encoder.mid_block.attentions[0] = torch.nn.Identity()  # type: ignore[index,operator]
    lq = draw(1, 3, 301, 420)
    (whole,) = guidance.features(lq)
    (tiled,) = guidance.features(lq, None, LQTiles(tile=256))
    assert whole.shape == (1, 32, 151, 210)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_encoders_tiles_leave_no_seam() -> None:
    """GroupNorms and attention see a tile only: features differ a little everywhere, and nowhere more than beside."""
    guidance, lq = make(), draw(1, 3, 320, 320)
    (whole,) = guidance.features(lq)
    tiles = LQTiles(tile=128)
    (tiled,) = guidance.features(lq, None, tiles)
    error = (tiled - whole).pow(2).mean().sqrt() / whole.std()
    assert 1e-4 < error < 0.05

    def gradient(x: torch.Tensor, dim: int) -> torch.Tensor:
        """Energy between each line and the next."""
        return x.diff(dim=dim).pow(2).mean([d for d in range(4) if d != dim])

    for dim in (2, 3):
        # Against the same lines of what is not tiled: the picture's own lines are not all alike.
        ratio = gradient(tiled, dim) / gradient(whole, dim)
        assert float(ratio.max() / ratio.median()) < 1.05


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
    made = tiles.encoder(limited(140 * 140, calls), 2, lq)
    torch.testing.assert_close(made, pointwise(lq * 2 - 1), atol=1e-6, rtol=1e-6)
    # The whole, then from its 301 positions 148, 72 and 36 of two pixels.
    assert said == ["memory ran out in the LQ encoder: it goes on in tiles of 72 x 72 pixels"]
    assert len(freed) == 3
    # The next picture begins with what fitted.
    before = len(calls)
    tiles.encoder(limited(140 * 140, calls), 2, lq)
    assert all(h * w <= 140 * 140 for _, _, h, w in calls[before:])
    assert len(said) == 1


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
    LQTiles(tile=256).encoder(limited(128 * 128, calls), 2, draw(4, 3, 128, 128))
    assert calls == [(4, 3, 128, 128)] + [(1, 3, 128, 128)] * 4


def test_what_is_no_lack_of_memory_is_not_tried_again() -> None:
    def wrong(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        LQTiles(tile=256, say=no_words).encoder(wrong, 2, draw(1, 3, 300, 300))
    with pytest.raises(torch.OutOfMemoryError):
        LQTiles(tile=256, say=no_words).encoder(limited(10, []), 2, draw(1, 3, 300, 300))
    with pytest.raises(PGPError, match="cannot overlap"):
        LQTiles(tile=4).encoder(pointwise, 2, draw(1, 3, 300, 300))


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

    made = LQTiles(tile=128, say=said.append).encoder(encode, 2, lq, dtype)
    torch.testing.assert_close(made, pointwise(lq * 2 - 1), atol=2e-2, rtol=0)
    name = str(dtype).removeprefix("torch.")
    assert said == [f"the LQ encoder overflowed in {name}; what overflows is run again in float32"]
    assert 0 < dtypes.count(torch.float32) <= dtypes.count(dtype)
    # Where it does not overflow, features are in what computed them.
    fine = LQTiles(tile=128, say=no_words).encoder(pointwise, 2, lq, dtype)
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
        getattr(guidance, "lq_encoder" if guidance is both[0] else "lq_adapter").register_forward_pre_hook(note)
    cut = [f for g in both for f in g.features(lq, None, LQTiles(device, tile=64, adapter_tile=32))]
    assert all(kind == device.type and n < lq.numel() for kind, n in seen)
    whole = [f for g in both for f in g.features(lq, None, LQTiles(device))]
    chosen = [f for g in both for f in g.features(lq, None, LQTiles(device, rest="cpu"))]
    assert all(f.device.type == "cpu" for f in (*cut, *chosen))
    assert all(f.device.type == device.type for f in whole)
    for a, b, c in zip(expected, whole, chosen, strict=True):
        torch.testing.assert_close(b.cpu(), a, atol=1e-4, rtol=1e-4)
        assert torch.equal(b.cpu(), c)
    for a, b in zip(expected[1:], cut[1:], strict=True):
        torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)


def test_it_can_be_stopped_after_any_tile() -> None:
    done: list[int] = []

    def stop() -> None:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LQTiles(tile=64, done=stop).encoder(pointwise, 2, draw(1, 3, 300, 300))
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
print(taken.peak, sum(f.nbytes for f in features))
"""


@pytest.mark.skipif(not memory.available(), reason="reads Linux's peak memory")
def test_memory_is_a_tiles() -> None:
    """Four times the pixels take what their features take, and no more. Each in a fresh process."""
    script = MEASURED.format(support=str(Path(__file__).parent / "support"))

    def taken(side: int) -> tuple[int, int]:
        out = subprocess.run([sys.executable, "-c", script, str(side)], capture_output=True, text=True, check=True)
        peak, features = map(int, out.stdout.split())
        return peak, features

    (small, kept), (large, more) = taken(256), taken(512)
    # The encoder on the whole of the larger one would take over 100 MB more.
    assert large - small <= 1.2 * (more - kept) + 8e6
