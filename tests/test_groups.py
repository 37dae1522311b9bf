"""Difficulty maps tell easy tiles from hard ones, and groups begin exactly where they should."""

from __future__ import annotations

import itertools
import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgp_core import schedule
from pgp_core.errors import PGPError
from pgp_core.tiling import Groups, Split, Tile, blended, difficulty, grid, heat, start_sigma
from pgp_core.tiling.groups import EASY, HARD, MEDIUM, fitted

LADDER = [14.6, 9.0, 6.0, 4.0, 2.5, 1.6, 1.0, 0.6, 0.3, 0.1, 0.0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Grey noise around the middle, ``(1, 3, height, width)``."""
    grey = 0.5 + 0.2 * torch.randn(1, 1, height, width, generator=generator(seed))
    return grey.clamp(0, 1).expand(1, 3, height, width)


# -- the map ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (3, 5), (8, 8), (17, 1030), (513, 64)])
@pytest.mark.parametrize("batch", [1, 2])
def test_any_size_has_a_map_of_cells_of_eight_pixels(size: tuple[int, int], batch: int) -> None:
    x = torch.rand(batch, 3, *size, generator=generator())
    got = difficulty(x)
    assert got.shape == (batch, 1, math.ceil(size[0] / 8), math.ceil(size[1] / 8))
    assert got.dtype == torch.float32
    assert got.isfinite().all()
    assert got.min() >= 0
    assert got.max() <= 1
    assert torch.equal(got, difficulty(x))
    assert torch.equal(got[-1:], difficulty(x[-1:])), "a picture's map does not depend on the batch's others"


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (40, 64), (600, 24)])
def test_flat_pictures_are_easy_everywhere(level: float, size: tuple[int, int]) -> None:
    assert difficulty(torch.full((1, 3, *size), level)).max() == 0


def test_rounding_to_eight_bits_is_no_difficulty() -> None:
    ramp = torch.linspace(0.2, 0.8, 256).expand(1, 3, 256, 256).mul(255).round() / 255
    assert difficulty(ramp).max() < 0.1


def test_what_is_as_hard_everywhere_is_hard_everywhere() -> None:
    assert difficulty(texture(256, 256)).quantile(0.05) > 0.5


def test_texture_is_harder_than_what_is_flat_and_than_what_is_out_of_focus() -> None:
    x = torch.full((1, 3, 96, 288), 0.5)
    x[..., :96] = texture(96, 96)
    x[..., 192:] = torch.nn.functional.avg_pool2d(texture(96, 96, 1), 9, 1, 4, count_include_pad=False)
    sharp, flat, soft = (difficulty(x)[..., a + 2 : a + 10].mean() for a in (0, 12, 24))
    assert sharp > 0.5
    assert flat < 1e-4
    assert flat < soft < sharp / 2


def test_numbers_that_are_none_and_half_precision() -> None:
    x = texture(64, 64).clone()
    x[0, :, 3, 4] = float("nan")
    x[0, :, 30, 4] = float("inf")
    assert difficulty(x).isfinite().all()
    half = texture(64, 64)
    torch.testing.assert_close(difficulty(half.half()), difficulty(half), atol=0.01, rtol=0)


def test_rows_that_are_looked_at_apart_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.rand(1, 3, 203, 64, generator=generator())
    whole = difficulty(x)
    # The package has the function under the module's name.
    monkeypatch.setattr(sys.modules["pgp_core.tiling.difficulty"], "_ROWS", 16)
    torch.testing.assert_close(difficulty(x), whole, atol=1e-6, rtol=0)


def test_heat_is_blue_where_easy_and_red_where_hard() -> None:
    x = torch.full((2, 3, 64, 2048), 0.5)
    at = torch.zeros(2, 1, 8, 256)
    at[..., 128:] = 1
    picture = heat(x, at)
    assert picture.shape == (2, 3, 32, 1024)
    assert (picture[:, 2] > picture[:, 0])[..., :500].all()
    assert (picture[:, 0] > picture[:, 2])[..., 524:].all()
    assert heat(torch.rand(1, 3, 1, 1), torch.zeros(1, 1, 1, 1)).shape == (1, 3, 1, 1)


# -- the groups ------------------------------------------------------------------------------------------------


def made(scores: torch.Tensor | None = None, split: Split | None = None, **options: object) -> Groups:
    """Groups of a latent of 64 x 64."""
    scores = torch.rand(1, 1, 64, 64, generator=generator()) if scores is None else scores
    y0 = torch.randn(1, 4, 64, 64, generator=generator(1))
    defaults = {"difficulty": scores, "y0": y0, "split": split or Split(), "starts": (0.5, 2.0), "common": 2}
    return Groups(**(defaults | options))  # type: ignore[arg-type]


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1))
def test_as_many_tiles_are_in_a_group_as_was_asked_for(n: int, easy: float, share: float) -> None:
    hard = (1 - easy) * share
    # Different, and none of them flat.
    scores = [0.1 + 0.8 * ((i * 37) % 61) / 61 for i in range(n)]
    low, high = Split(easy, hard).limits(scores)
    assert sum(s <= low for s in scores) == round(easy * n)
    assert sum(s > high for s in scores) == min(round(hard * n), n - round(easy * n))


def test_by_value_a_tile_is_what_its_difficulty_says() -> None:
    assert Split(0.2, 0.6, by="value").limits([0.9] * 5) == (0.2, 0.6)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"easy": 0.8, "hard": 0.4}, "more than 1"),
        ({"easy": 1.2, "hard": 0}, "0 to 1"),
        ({"easy": float("nan")}, "0 to 1"),
        ({"easy": 0.5, "hard": 0.2, "by": "value"}, "cannot be easy"),
        ({"by": "rank"}, "share or value"),
    ],
)
def test_splits_that_make_no_sense(split: dict[str, object], words: str) -> None:
    with pytest.raises(PGPError, match=words):
        Split(**split)  # type: ignore[arg-type]


def test_tiles_of_a_flat_picture_are_all_easy() -> None:
    tiles = grid(64, 64, 32, 8)
    for nearly in (torch.zeros(1, 1, 64, 64), 0.03 * torch.rand(1, 1, 64, 64, generator=generator())):
        groups = made(nearly)
        assert [groups.group(t) for t in tiles] == [EASY] * len(tiles)
        assert {groups.group(t) for t in tiles} == {EASY}


def test_a_small_hard_thing_in_an_easy_tile_counts() -> None:
    """Of two tiles of the same mean the one with the spot is harder; of the largest tiles a 64th is enough."""
    scores = torch.full((1, 1, 64, 128), 0.1)
    scores[..., 64:] = 0.0
    scores[..., 20:28, 90:98] = 1.0
    groups = made(scores, y0=torch.zeros(1, 4, 64, 128), split=Split(0.5, 0.0), overlap=0)
    even, spot = Tile(0, 0, 64, 64, (64, 128)), Tile(0, 64, 64, 64, (64, 128))
    assert spot.crop(scores).mean() < even.crop(scores).mean()
    assert groups.score(spot) == pytest.approx(1 / 8)
    assert [groups.group(t) for t in (even, spot)] == [EASY, MEDIUM]


def test_a_picture_of_one_tile_is_not_sorted() -> None:
    groups = made(torch.zeros(1, 1, 64, 64))
    (tile,) = grid(64, 64, 64, 16)
    assert groups.skip(tile, 14.6, torch.zeros(1, 4, 64, 64)) is None
    assert (groups.called, groups.skipped) == (1, 0)


def test_all_tiles_are_known_from_one() -> None:
    for overlap in (4, 0, 8):
        groups, tiles = made(split=Split(0.3, 0.3), overlap=overlap), grid(64, 64, 16, overlap)
        found = [groups.group(t) for t in tiles]
        assert found.count(EASY) == found.count(HARD) == round(0.3 * len(tiles))
    # An axis that is not cut, tiles at the edge that are longer, and the smallest tiles.
    for height, width, side, overlap in ((40, 203, 64, 16), (67, 130, 64, 16), (9, 21, 4, 0)):
        other = made(y0=torch.zeros(1, 4, height, width), difficulty=torch.rand(1, 1, height, width))
        assert {other.group(t) for t in grid(height, width, side, overlap)} <= {EASY, MEDIUM, HARD}


def test_start_sigmas_are_the_schedules() -> None:
    a = schedule.alphas_cumprod().double()
    for share, t in ((0.2, 200), (0.4, 400), (0.0, 0)):
        assert start_sigma(share) == pytest.approx(float(((1 - a[t]) / a[t]).sqrt()), rel=1e-5)
    assert start_sigma(1) == math.inf


# -- sampling --------------------------------------------------------------------------------------------------


def euler(denoise: object, x: torch.Tensor, ladder: list[float]) -> torch.Tensor:
    for sigma, following in itertools.pairwise(ladder):
        x = x + (x - denoise(x, sigma)) / sigma * (following - sigma)  # type: ignore[operator]
    return x


def test_a_waiting_tile_walks_exactly_along_the_noised_coarse_latent() -> None:
    tiles = grid(64, 64, 32, 8)
    groups = made(torch.zeros(1, 1, 64, 64))
    groups.begin(LADDER)
    noise = torch.randn(1, 4, 64, 64, generator=generator(2), dtype=torch.float64)
    y0 = groups.y0.double()

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        def predict(tile: Tile) -> torch.Tensor:
            found = groups.skip(tile, sigma, tile.crop(x))
            assert found is not None
            assert found.dtype == torch.float64
            return found

        return blended(predict, tiles, 8)

    start = LADDER.index(0.6)
    x = euler(denoise, y0 + LADDER[0] * noise, LADDER[: start + 1])
    torch.testing.assert_close(x, y0 + 0.6 * noise, atol=2e-5, rtol=1e-5)
    assert (groups.called, groups.skipped) == (0, start * len(tiles))
    assert groups.saved == 1


def test_tiles_begin_as_if_the_sampling_had_begun_there() -> None:
    """A model that knows each tile's picture: what a tile was fed before it began does not matter."""
    tiles = grid(64, 64, 32, 0)
    groups = made(split=Split(0.5, 0.25), starts=(0.7, 3.0), overlap=0)
    sorted_into = [groups.group(t) for t in tiles]
    groups.begin(LADDER)
    noise = torch.randn(1, 4, 64, 64, generator=generator(2), dtype=torch.float64)
    y0 = groups.y0.double()

    def model(x: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.tanh(x / (1 + sigma**2) ** 0.5) * 0.9

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        def predict(tile: Tile) -> torch.Tensor:
            found = groups.skip(tile, sigma, tile.crop(x))
            return model(tile.crop(x), sigma) if found is None else found

        return blended(predict, tiles, 0)

    got = euler(denoise, y0 + LADDER[0] * noise, LADDER)
    steps = []
    for tile, group in zip(tiles, sorted_into, strict=True):
        ladder = [s for s in LADDER if s <= (0.7, 3.0, math.inf)[group]]
        alone = euler(model, tile.crop(y0) + ladder[0] * tile.crop(noise), ladder)
        torch.testing.assert_close(tile.crop(got), alone, atol=2e-5, rtol=1e-5)
        steps.append(len(ladder) - 1)
    assert sorted(steps) == [3, 3, 6, 10]
    assert (groups.called, groups.skipped) == (22, 18)


@pytest.mark.parametrize(("common", "called"), [(1, 1), (2, 2), (5, 5), (10, 10), (99, 10)])
def test_the_last_steps_are_everybodys(common: int, called: int) -> None:
    groups = made(torch.zeros(1, 1, 64, 64), starts=(1e-4, 1e-4), common=common)
    (tile, *_) = grid(64, 64, 32, 8)
    for _ in range(2):
        groups.begin(LADDER)
        asked = [groups.skip(tile, s, torch.zeros(1, 4, 32, 32)) is None for s in LADDER[:-1]]
        assert asked == [False] * (10 - called) + [True] * called
        assert (groups.called, groups.skipped) == (called, 10 - called), "a run counts anew"


def test_the_first_part_of_a_ladder_has_no_last_steps() -> None:
    groups = made(torch.zeros(1, 1, 64, 64))
    (tile, *_) = grid(64, 64, 32, 8)
    groups.begin(LADDER[:4])
    assert groups.skip(tile, LADDER[2], torch.zeros(1, 4, 32, 32)) is not None
    groups.begin([])
    assert groups.skip(tile, LADDER[2], torch.zeros(1, 4, 32, 32)) is not None


def test_a_level_that_is_the_start_to_rounding_is_the_start() -> None:
    groups = made(torch.zeros(1, 1, 64, 64), starts=(1.0, 2.0))
    (tile, *_) = grid(64, 64, 32, 8)
    like = torch.zeros(1, 4, 32, 32)
    assert groups.skip(tile, float(torch.tensor(1.0) + 1e-6), like) is None
    assert groups.skip(tile, 1.01, like) is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_chunks_of_a_batch_get_each_its_picture(dtype: torch.dtype) -> None:
    y0 = torch.randn(3, 4, 64, 64, generator=generator(1))
    groups = made(torch.zeros(3, 1, 64, 64), y0=y0)
    tile = grid(64, 64, 32, 8)[4]
    got = groups.skip(tile, 9.0, torch.zeros(6, 4, 32, 32, dtype=dtype))
    assert got is not None
    assert got.dtype == dtype
    assert torch.equal(got, torch.cat([tile.crop(y0).to(dtype)] * 2))


def test_a_batch_waits_as_long_as_its_hardest_picture_may() -> None:
    scores = torch.zeros(2, 1, 64, 64)
    scores[1, :, :20, :20] = 1
    tiles = grid(64, 64, 32, 8)
    groups = made(scores, y0=torch.zeros(2, 4, 64, 64))
    assert groups.group(tiles[0]) == HARD
    groups.begin(LADDER, (0, 1))
    assert groups.group(tiles[0]) == EASY
    groups.begin(LADDER, (1, 2))
    assert groups.group(tiles[0]) == HARD
    got = groups.skip(tiles[-1], 9.0, torch.ones(2, 4, 32, 32))
    assert got is not None
    assert got.shape[0] == 2
    assert {made(scores[:1], y0=torch.zeros(2, 4, 64, 64)).group(t) for t in tiles} == {EASY}


def test_what_stands_for_some_of_the_pictures_is_theirs() -> None:
    y0 = torch.arange(3.0)[:, None, None, None].expand(3, 4, 32, 32)
    groups = Groups(torch.zeros(1, 1, 32, 32), y0, Split(1.0, 0.0), (0.1, 4.0), 1)
    assert groups.pictures == 3
    groups.begin(LADDER)
    tile = grid(32, 32, 16, 4)[0]
    # Two chunks of the third picture and the first.
    got = groups.skip(tile, 9.0, torch.zeros(4, 4, 16, 16), (2, 0))
    assert got is not None
    assert [float(x.mean()) for x in got] == [2, 0, 2, 0]
    groups.begin(LADDER, (1, 3))
    got = groups.skip(tile, 9.0, torch.zeros(1, 4, 16, 16), (1,))
    assert got is not None and float(got.mean()) == 2


def test_maps_and_masks_of_another_size() -> None:
    ramp = torch.linspace(0, 1, 8).expand(1, 1, 4, 8)
    assert fitted(ramp, 64, 128).shape == (1, 1, 64, 128)
    assert fitted(ramp.expand(1, 1, 4, 8), 2, 4).shape == (1, 1, 2, 4)
    # Cells and latent positions of one canvas, whose sizes are rounded up.
    for height, width in ((1, 1), (13, 29), (300, 452), (1000, 872)):
        cells = difficulty(torch.zeros(1, 3, height, width))
        fitted(cells, -(-height // 4), -(-width // 4))
        fitted(cells, -(-height // 8), -(-width // 8))
    damaged = torch.full((1, 1, 4, 4), float("nan"))
    assert fitted(damaged, 8, 8).max() == 0
    assert fitted(torch.full((1, 1, 4, 4), 7.0), 8, 8).max() == 1
    with pytest.raises(PGPError, match="64x32 does not have the proportions of the latent \\(64x64\\)"):
        fitted(torch.zeros(1, 1, 32, 64), 64, 64)


def test_what_does_not_fit_is_refused_in_one_line() -> None:
    tile = grid(96, 96, 32, 8)[0]
    with pytest.raises(PGPError, match="64x64, but one of 96x96"):
        made().skip(tile, 9.0, torch.zeros(1, 4, 32, 32))
    (tile, *_) = grid(64, 64, 32, 8)
    easy = made(torch.zeros(1, 1, 64, 64), y0=torch.zeros(2, 4, 64, 64))
    for shape in ((3, 4, 32, 32), (2, 16, 32, 32)):
        with pytest.raises(PGPError, match="connect the one that is sampled"):
            easy.skip(tile, 9.0, torch.zeros(*shape))
    with pytest.raises(PGPError, match="3 difficulty masks for 2 pictures"):
        made(torch.zeros(3, 1, 64, 64), y0=torch.zeros(2, 4, 64, 64))
    with pytest.raises(PGPError, match="smaller share"):
        made(starts=(2.0, 1.0))
    with pytest.raises(PGPError, match="common to all tiles: 1 or more, not 0"):
        made(common=0)
    with pytest.raises(PGPError, match="latents of pictures"):
        made(y0=torch.zeros(1, 4, 5, 64, 64))
