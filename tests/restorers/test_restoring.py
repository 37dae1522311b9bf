"""What a restorer makes of pictures: the authors' arithmetic, every size, batches, half precision, tiles, stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import rounding
import torch
from restorer_kit import Variant, picture

from pgp_core.errors import Cancelled
from pgp_core.images.canvas import Size
from pgp_core.restorers.finding import find
from pgp_core.restorers.restorer import PARTS, Restorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Tiling

Exact = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
#: No multiple of anything, so what is padded counts too.
CANVAS = picture(61, 71)


def test_it_is_the_authors_arithmetic(restorer: Restorer, options: SampleOptions, exact: Exact) -> None:
    expected, rounded = exact(CANVAS)
    ours = restorer.restore(CANVAS, options)
    assert ours.dtype == torch.float32 and ours.device.type == "cpu"
    assert rounding.difference(ours, expected) <= rounding.allowed(rounded, expected)
    # Neither saturated nor flat nor the canvas itself, or the comparison would say little.
    assert float(expected.std()) > 0.02 and float((expected - CANVAS).abs().mean()) > 0.01


def test_nothing_said_is_the_recipe(restorer: Restorer) -> None:
    canvas = picture(8, 16)
    assert torch.equal(restorer.restore(canvas), restorer.restore(canvas, restorer.recipe.options()))


@pytest.mark.parametrize("size", [(1, 1), (17, 33), None], ids=["1x1", "17x33", "largest"])
def test_every_size_comes_out_exactly(
    size: tuple[int, int] | None, made: Variant, restorer: Restorer, options: SampleOptions
) -> None:
    height, width = size or made.largest
    if not restorer.recipe.one_step:
        options = replace(options, steps=1, cfg=1.0)
    for scale in (1.0, 3.3) if size else (1.0,):
        out = upscale(restorer, picture(height, width), Size(scale=scale), options)
        assert out.shape == (1, 3, int(height * scale + 0.5), int(width * scale + 0.5))
        assert out.dtype == torch.float32 and bool(out.isfinite().all())
        assert 0 <= float(out.min()) <= float(out.max()) <= 1


def test_a_batch_is_its_pictures_alone(restorer: Restorer, options: SampleOptions) -> None:
    pictures = picture(20, 27, batch=2)
    both = upscale(restorer, pictures, Size(scale=2), options)
    assert not torch.equal(both[0], both[1])
    for alone, together in zip(pictures, both, strict=True):
        assert torch.equal(upscale(restorer, alone[None], Size(scale=2), options)[0], together)


def test_a_batch_of_canvases_is_each_alone(restorer: Restorer, options: SampleOptions) -> None:
    """Within rounding: products of another shape are added up in another order."""
    if not restorer.recipe.one_step:
        pytest.skip("each picture of a batch has noise of its own")
    pictures = picture(24, 40, batch=2)
    together = restorer.restore(pictures, options)
    for alone, other in zip(pictures, together, strict=True):
        rounding.assert_same(restorer.restore(alone[None], options)[0], other, rounding.NETWORK * rounding.RATIO)


def test_half_precision_is_near_and_finite(made: Variant, options: SampleOptions, exact: Exact) -> None:
    """Flat and saturated canvases beside a picture: numbers grow largest on them."""
    expected, _ = exact(CANVAS)
    if not made.halves:
        pytest.skip("another variant of the family shows it")
    flat = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 16, 24)
    once = options if made.given.one_step else replace(options, steps=1, cfg=1.0)
    for dtype, mean in made.halves.items():
        half = find(replace(made.given, dtype=dtype)).load(say=str)
        assert {str(p.dtype) for p in half.unet.parameters()} == {f"torch.{dtype}"}  # type: ignore[attr-defined]
        apart = float((half.restore(CANVAS, options).double() - expected).abs().mean())
        assert 0 < apart <= mean, (dtype, apart)
        assert bool(half.restore(flat, once).isfinite().all())


def test_tiles_are_the_whole(made: Variant, restorer: Restorer, options: SampleOptions) -> None:
    tiles = made.tiles
    if tiles is None:
        pytest.skip(f"{made.name} has no tiles")
    canvas = picture(*tiles.size)
    whole = restorer.restore(canvas, options)

    def apart(tile: int) -> torch.Tensor:
        tiled = replace(options, tiling=Tiling(tile, tiles.overlap))
        return (restorer.restore(canvas, tiled) - whole).abs()

    assert float(apart(-(-max(tiles.size) // 64) * 64).max()) == 0, "one tile is the whole, bit for bit"
    found = apart(tiles.tile)
    assert 0 < float(found.mean()) <= tiles.mean, tiles.why
    assert float(found.max()) <= tiles.largest, tiles.why


def test_a_stopped_run_leaves_nothing(restorer: Restorer, options: SampleOptions) -> None:
    canvas, seen = picture(16, 24), []
    before = restorer.restore(canvas, options)
    last = 1 if restorer.recipe.one_step else 2
    longer = options if restorer.recipe.one_step else replace(options, steps=5)

    def stop(done: int, total: int) -> bool:
        seen.append((done, total))
        return done < last

    with pytest.raises(Cancelled):
        restorer.restore(canvas, longer, stop)
    assert seen == [(i + 1, 1 if restorer.recipe.one_step else 5) for i in range(last)]
    networks = [v for v in vars(restorer).values() if isinstance(v, torch.nn.Module)]
    modules = [m for network in networks for m in network.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert torch.equal(restorer.restore(canvas, options), before)


def test_its_parts_are_named_by_the_field_s_words(restorer: Restorer) -> None:
    """What efficiency is counted by; no parameter is in two of them."""
    parts = restorer.parts()
    assert "unet" in parts and set(parts) <= set(PARTS)
    parameters = [id(p) for part in parts.values() for p in part.parameters()]
    assert len(parameters) == len(set(parameters)) > 0
