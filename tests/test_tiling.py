"""Tiles cover a latent, blend without a trace where they may, and get smaller when memory runs out."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgp_core.choices import BLENDS
from pgp_core.errors import PGPError
from pgp_core.tiling import STEP, Fitting, Tile, blended, grid, out_of_memory, window


def overlap_of(a: Tile, b: Tile) -> tuple[int, int]:
    """Positions that two tiles share, down and across."""
    down = min(a.y + a.height, b.y + b.height) - max(a.y, b.y)
    across = min(a.x + a.width, b.x + b.width) - max(a.x, b.x)
    return down, across


@given(st.integers(1, 300), st.integers(1, 300), st.integers(8, 100), st.integers(0, 40))
def test_tiles_cover_everything_and_start_on_the_unets_grid(height: int, width: int, tile: int, overlap: int) -> None:
    if tile // 4 * 4 <= -(-overlap // 4) * 4:
        with pytest.raises(PGPError, match="cannot overlap"):
            grid(height, width, tile, overlap)
        return
    tiles = grid(height, width, tile, overlap)
    covered = torch.zeros(height, width)
    for t in tiles:
        assert t.y % STEP == t.x % STEP == 0
        assert t.height <= tile + 3
        assert t.width <= tile + 3
        covered[t.y : t.y + t.height, t.x : t.x + t.width] += 1
    assert covered.min() >= 1
    # Neighbours in a row share at least the overlap.
    for a, b in itertools.pairwise(tiles):
        if a.y == b.y:
            assert overlap_of(a, b)[1] >= overlap


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("size", [(64, 64), (97, 130), (40, 203)])
def test_pointwise_models_are_not_changed(size: tuple[int, int], blend: str) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    got = blended(lambda t: t.crop(x).sin(), grid(*size, 32, 16), 16, blend)
    torch.testing.assert_close(got, x.sin(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (97, 130), (40, 203)])
def test_a_model_that_looks_a_quarter_of_the_overlap_far_is_not_changed(size: tuple[int, int]) -> None:
    """Two 3x3 and one 5x5 convolution look 4 positions far; the overlap is 16."""
    torch.manual_seed(0)
    layers = (
        torch.nn.Conv2d(4, 8, 3, padding=1),
        torch.nn.Conv2d(8, 8, 5, padding=2),
        torch.nn.Conv2d(8, 4, 3, padding=1),
    )
    model = torch.nn.Sequential(layers[0], torch.nn.Tanh(), layers[1], torch.nn.Tanh(), layers[2])
    x = torch.randn(1, 4, *size)
    with torch.no_grad():
        got = blended(lambda t: model(t.crop(x)), grid(*size, 40, 16), 16)
        torch.testing.assert_close(got, model(x), atol=1e-6, rtol=1e-5)
        # One position further, and borders of tiles are seen.
        wider = blended(lambda t: model(t.crop(x)), grid(*size, 40, 12), 12)
    assert (wider - model(x)).abs().max() > 1e-4


def test_what_counts_nothing_may_be_anything() -> None:
    def predict(tile: Tile) -> torch.Tensor:
        out = torch.ones(1, 1, tile.height, tile.width)
        if tile.x > 0:
            out[..., 0] = float("inf")
        return out

    assert torch.equal(blended(predict, grid(32, 64, 32, 16), 16), torch.ones(1, 1, 32, 64))


@pytest.mark.parametrize("blend", BLENDS)
def test_halves_stay_halves_and_weights_are_within_one(blend: str) -> None:
    tiles = grid(48, 80, 32, 16)
    for tile in tiles:
        weights = window(tile, 16, blend)
        assert weights.shape == (tile.height, tile.width)
        assert weights.min() >= 0
        assert weights.max() <= 1
    out = blended(lambda t: torch.full((1, 2, t.height, t.width), 0.5, dtype=torch.float16), tiles, 16, blend)
    assert out.dtype == torch.float16
    assert torch.equal(out, torch.full_like(out, 0.5))


def test_a_tile_crops_tensors_at_every_scale() -> None:
    tile = Tile(8, 4, 16, 13, (24, 17))
    assert tile.crop(torch.zeros(1, 24, 17)).shape[1:] == (16, 13)
    # Half, rounded up and down; the tile reaches the right edge, so it takes what is there.
    half = torch.arange(12 * 9).view(12, 9)
    assert torch.equal(tile.crop(half), half[4:12, 2:9])
    assert tile.crop(torch.zeros(12, 8)).shape == (8, 6)
    assert tile.crop(torch.zeros(6, 5)).shape == (4, 4)
    # A mask in pixels, eight to a position.
    assert tile.crop(torch.zeros(192, 136)).shape == (128, 104)


def test_progress_is_told_after_each_tile_and_may_stop() -> None:
    seen = []

    def done() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blended(lambda t: torch.zeros(1, 1, t.height, t.width), grid(64, 64, 24, 8), 8, done=done)
    assert len(seen) == 3


@pytest.mark.parametrize("start", [None, 256])
def test_tiles_are_halved_until_they_fit_and_stay_so(start: int | None) -> None:
    said: list[int] = []
    freed: list[int] = []
    fitting = Fitting(start, 16, said.append, lambda: freed.append(1))
    tried: list[int] = []

    def attempt(tiles: list[Tile]) -> int:
        largest = max(t.height for t in tiles)
        tried.append(largest)
        if largest > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return len(tiles)

    assert fitting.run(200, 200, attempt) == len(grid(200, 200, 48, 16))
    assert tried == [200, 100, 48]
    assert len(said) == len(freed) == len(tried) - 1
    before = list(tried)
    fitting.run(200, 200, attempt)
    assert len(tried) == len(before) + 1, "what was found stays"


def test_other_errors_and_too_small_tiles_are_not_tried_again() -> None:
    def fails(error: Exception) -> Fitting:
        fitting = Fitting(64, 16)

        def attempt(_: list[Tile]) -> None:
            raise error

        with pytest.raises(type(error), match=str(error)):
            fitting.run(200, 200, attempt)
        return fitting

    assert fails(RuntimeError("shapes do not match")).tile == 64
    assert fails(torch.OutOfMemoryError("CUDA out of memory")).tile == 32
    assert out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"))
    assert out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"))
    assert not out_of_memory(ValueError("out of memory"))


def test_small_tiles_overlap_by_half_at_most() -> None:
    fitting = Fitting(32, 32)
    assert fitting.overlap == 16
    assert [(t.y, t.height) for t in fitting.tiles(64, 32)] == [(0, 32), (16, 32), (32, 32)]
