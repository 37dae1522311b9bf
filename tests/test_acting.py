"""What a UNet's features become at a site, on whichever backbone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pgp_core.errors import GuidanceError
from pgp_core.guidance.acting import ActiveRange, act, in_turn
from pgp_core.guidance.module import Guidance, GuidanceSpec, Site
from pgp_core.guidance.whole_phase import CanvasPhase, Reached
from pgp_core.tiling import grid

SITES = (Site("conv_in", 4, 0, 4, "add"), Site("down_blocks.0.downsamplers.0", 4, 2, 8, "peam"))
SPEC = GuidanceSpec("test", SITES, channels=(4, 4, 4, 4), unshuffle=4)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def guidance(operations: Any = torch.nn) -> Guidance:
    torch.manual_seed(0)
    return Guidance(SPEC, operations=operations).requires_grad_(False)


@pytest.mark.parametrize(
    ("start", "end", "inside", "outside"),
    [
        (0.0, 1.0, [-1.0, 0.0, 999.0, 5000.0], []),
        (0.25, 1.0, [-1.0, 750.0], [751.0]),
        (0.0, 0.5, [5000.0, 500.0], [499.0]),
        (0.25, 0.5, [750.0, 500.0], [751.0, 499.0]),
    ],
)
def test_a_range_is_open_at_the_ends_of_the_sampling(
    start: float, end: float, inside: list[float], outside: list[float]
) -> None:
    active = ActiveRange.of(start, end, lambda share: 1000 * (1 - share))
    assert all(level in active for level in inside)
    assert not any(level in active for level in outside)
    assert active.always == (not outside)


def test_pictures_are_met_in_turn() -> None:
    f = draw(2, 3, 4, 5)
    a, b, *again = in_turn(f, 6)
    assert torch.equal(a, f[0]) and torch.equal(b, f[1])
    assert all(row is of for row, of in zip(again, [a, b, a, b], strict=True)), "the same objects"
    with pytest.raises(GuidanceError, match="2 pictures does not fit a batch of 3"):
        in_turn(f, 3)


def test_without_strength_nothing_is_looked_up() -> None:
    h = draw(1, 4, 6, 6)
    assert act(guidance(), 0, h, lambda: pytest.fail("asked for features"), 0.0) is h


def test_another_phase_is_asked_for_where_phases_are_exchanged_only() -> None:
    guide, h, f = guidance(), draw(2, 4, 6, 6), draw(1, 4, 6, 6)
    phased = draw(2, 4, 6, 6) + 1

    def row() -> list[torch.Tensor]:
        return in_turn(f, 2)

    assert torch.equal(act(guide, 0, h, row, phase=lambda _: pytest.fail("asked")), h + f)
    assert torch.equal(act(guide, 1, h, row, phase=lambda _: phased), guide.fuse(1, h, f, phased=phased))
    assert torch.equal(act(guide, 1, h, row, phase=lambda _: None), guide.fuse(1, h, f))


@pytest.mark.parametrize("site", [0, 1])
def test_layers_that_follow_their_input_compute_in_float32(site: int) -> None:
    """As ComfyUI's do; the UNet goes on in half precision."""
    following = guidance(SimpleNamespace(**vars(torch.nn)))
    h, f = draw(2, 4, 6, 6).half(), draw(2, 4, 6, 6)
    found = act(following, site, h, lambda: in_turn(f, 2))
    assert found.dtype == torch.float16
    assert torch.equal(found, following.fuse(site, h.float(), f).half())


def test_features_of_another_size_than_the_tile_s_cannot_be_gathered() -> None:
    tiles = grid(32, 24, 16, 8)
    phase = CanvasPhase(lambda _: 2, lambda _site, shape: in_turn(draw(1, 4, 16, 12), shape[0]), who="Node: ")
    with pytest.raises(GuidanceError, match=r"^Node: the model's features are 4 x 4 where the tile's are 8 x 8"):
        phase.gather(lambda _: draw(1, 4, 4, 4), tiles, 8, "cosine", [1])


def test_a_call_that_never_comes_to_the_site_leaves_the_phase_to_each_tile() -> None:
    tiles = grid(32, 24, 16, 8)
    phase = CanvasPhase(lambda _: 2, lambda _site, shape: in_turn(draw(1, 4, 16, 12), shape[0]))
    phase.gather(lambda _: None, tiles, 8, "cosine", [1])
    assert phase.at(1, tiles[0], draw(1, 4, 8, 8)) is None


def test_a_call_ends_at_the_site_that_is_gathered() -> None:
    tiles, whole = grid(32, 24, 16, 8), draw(1, 4, 16, 12)
    f, seen = draw(1, 4, 16, 12), []
    phase = CanvasPhase(lambda _: 2, lambda _site, shape: in_turn(f, shape[0]))

    def features(tile: Any) -> torch.Tensor:
        h = tile.coarser(2).crop(whole)
        with pytest.raises(Reached) as here:
            phase.at(1, tile, h)
        seen.append(tile)
        return here.value.features

    phase.gather(features, tiles, 8, "cosine", [1])
    assert seen == tiles
    own, other = torch.fft.fft2(whole.double()), torch.fft.fft2(f.double())
    expected = torch.fft.ifft2(own.abs() * other / other.abs()).real
    for tile in tiles:
        found = phase.at(1, tile, whole)
        assert found is not None
        # Few hundred values, of which the largest is some 4: rounding alone.
        torch.testing.assert_close(found.double(), tile.coarser(2).crop(expected), atol=1e-5, rtol=1e-5)
