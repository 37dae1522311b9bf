"""Tiles that nobody chose: none while that is cheap and fits, then what fits and is cheap, by multiply-accumulates."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from pgp_core.tiling import STEP, Fitting, automatic, first_tile, memory
from pgp_core.unet.count import count
from pgp_core.unet.known import NANO_SHAPE, SDXL_SHAPE
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import load_plan

#: Latent positions that tiles share: 128 pixels of SDXL, of nano.
OVERLAP = {"pgp-sdxl": 16, "pgp-nano": 32}


@functools.cache
def growth(name: str) -> tuple[float, float]:
    """What a UNet's multiply-accumulates are times the positions, and times their square (attention)."""
    shape = SDXL_SHAPE if name == "pgp-sdxl" else NANO_SHAPE
    small, large = (count(shape, load_plan(name), (side, side)).macs_total for side in (64, 128))
    square = (large - 4 * small) / (128**4 - 4 * 64**4)
    return (small - square * 64**4) / 64**2, square


def cost(name: str, size: tuple[int, int], tile: int | None) -> float:
    """Of a UNet over a latent."""
    linear, square = growth(name)
    areas = [t.height * t.width for t in Fitting(tile, OVERLAP[name]).tiles(*size)]
    return sum(linear * area + square * area**2 for area in areas)


@pytest.mark.parametrize("name", OVERLAP)
@pytest.mark.parametrize(
    "size", [(s, s) for s in (128, 256, 320, 384, 392, 448, 512, 768, 1024, 2048)] + [(128, 1024), (96, 2048)]
)
def test_with_all_memory_it_is_not_much_dearer_than_the_cheapest(size: tuple[int, int], name: str) -> None:
    """Nano has few channels: attention weighs ten times as much in it, and smaller tiles are its cheapest."""
    cheapest = min(cost(name, size, tile) for tile in (None, 64, 96, 128, 160, 192, 256, 384, 512))
    bound = {"pgp-sdxl": 1.6, "pgp-nano": 3.5}[name]
    assert cost(name, size, automatic(*size, OVERLAP[name], None)) <= bound * cheapest


def test_what_fits_and_pays_is_whole() -> None:
    assert automatic(384, 384, 16, None) is None
    assert automatic(128, 1024, 16, 128 * 1024) is None
    assert automatic(8, 8, 16, 64) is None


@pytest.mark.parametrize("side", [388, 400, 450, 1024])
def test_a_large_overlap_is_kept(side: int) -> None:
    tile = automatic(side, side, 128, None)
    assert tile is not None and Fitting(tile, 128).overlap == 128


@pytest.mark.parametrize("size", [(384, 384), (380, 52), (1024, 1000)])
@pytest.mark.parametrize("room", [0, 1, 20**2, 64**2, 100**2, 10**4 + 1, 120**2, 200**2])
def test_tiles_fit_and_lie_on_the_grid_and_none_is_more_than_with_the_largest(room: int, size: tuple[int, int]) -> None:
    tile = automatic(*size, 16, room)
    if tile is None:
        assert size[0] * size[1] <= room
        return
    assert tile % STEP == 0
    assert tile == STEP or tile**2 <= room
    largest = max(STEP, min(math.isqrt(room), 160) // STEP * STEP)
    assert len(Fitting(tile, 16).tiles(*size)) == len(Fitting(largest, 16).tiles(*size))


def test_the_command_lines_first_tile_is_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        unet = build_unet(NANO_SHAPE, load_plan("pgp-nano"))

    def first(free: int | None, side: int) -> int | None:
        monkeypatch.setattr(memory, "available", lambda _: free)
        return first_tile(unet, torch.empty(1, 48, side, side, device="meta"), 1, 32)

    assert first(10**12, 384) is None
    assert first(None, 384) is None
    assert first(None, 512) == first(10**12, 512) == 152
    small = first(10**8, 384)
    assert small is not None and 4 < small < 152
