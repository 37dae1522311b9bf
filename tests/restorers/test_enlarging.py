"""Models that take the small picture and return a multiple of its size: where pixels come to lie, and colours."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect import Enlarging

from pgp_core.choices import COLOR_FIXES
from pgp_core.errors import PGPError
from pgp_core.images.canvas import canvas, uncanvas
from pgp_core.images.frames import Frame
from pgp_core.images.resampling import enlarge
from pgp_core.images.sizes import Size
from pgp_core.images.wrap import MARGIN, Wrap
from pgp_core.restorers.upscale import upscale

#: As a model has it that unshuffles pixels by 2 and halves thrice.
FRAME = Frame(multiple=16, enlarges=4)
BORDERED = Frame(multiple=16, border=9, enlarges=4)

SIDES = st.integers(1, 61)
SCALES = st.sampled_from([1.0, 1.5, 2.0, 3.3, 4.0, 5.0, 8.0])


def noise(batch: int, height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(2))


@settings(max_examples=40)
@given(SIDES, SIDES, SCALES, st.sampled_from([FRAME, BORDERED]))
def test_the_canvas_is_the_result_over_four_rounded_up_in_its_frame(w: int, h: int, scale: float, frame: Frame) -> None:
    seen: list[tuple[int, ...]] = []
    restorer = Enlarging(frame, lambda x: seen.append(tuple(x.shape)))
    out = upscale(restorer, noise(1, h, w), Size(scale=scale), fix="none")
    result = [max(1, int(n * scale + 0.5)) for n in (h, w)]
    assert list(out.shape) == [1, 3, *result]
    least = [-(-n // 4) + 2 * frame.border for n in result]
    assert seen == [(1, 3, *(-(-n // 16) * 16 for n in least))]


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (16, 48), (5, 130)])
@pytest.mark.parametrize("frame", [FRAME, BORDERED], ids=["plain", "border"])
def test_at_its_own_scale_it_gets_the_picture_itself(size: tuple[int, int], frame: Frame) -> None:
    x = noise(2, *size)
    out = upscale(Enlarging(frame), x, Size(scale=4), fix="none")
    assert torch.equal(out, x.repeat_interleave(4, -1).repeat_interleave(4, -2))


@settings(max_examples=60)
@given(st.integers(40, 90), st.sampled_from([1.0, 1.5, 2.0, 3.0, 3.3, 4.0]), st.sampled_from([FRAME, BORDERED]))
def test_every_pixel_lies_where_it_belongs(side: int, scale: float, frame: Frame) -> None:
    """Of a ramp, where places are values. A result's pixel would be off by a whole one where a side is no multiple of
    four, or a frame is odd, if its half were cut from the wrong end."""
    ramp = ((torch.arange(side) + 0.5) / side).expand(1, 3, 7, side)
    for x, dim in ((ramp, -1), (ramp.mT, -2)):
        out = upscale(Enlarging(frame), x, Size(scale=scale), fix="none")
        n = out.shape[dim]
        # A cell of four has one value: that of its middle. Of ends that are cut, what is left says less.
        start = (4 * -(-n // 4) - n) // 2
        at = torch.arange(n)
        middle = ((at + start) // 4 * 4 + 2 - start).double() / n
        values = out.movedim(dim, -1)[0, 0, 3].double()
        # Lanczos looks three of the coarser pixels far; beyond that from the ends it is off by 1% of a pixel.
        reach = 16
        inner = slice(reach, n - reach)
        assert float((values - middle)[inner].abs().max()) * n < 0.1 * max(1.0, scale)


@pytest.mark.parametrize("scale", [2, 3.3, 4, 8])
def test_alpha_is_enlarged_and_hidden_colours_do_not_matter(scale: float) -> None:
    x = noise(1, 19, 30, 4)
    x[:, 3, :, 12:] = 0
    other = x.clone()
    other[:, :3, :, 12:] = 1 - other[:, :3, :, 12:]
    for fix in COLOR_FIXES:
        out, twin = (upscale(Enlarging(FRAME), y, Size(scale=scale), fix=fix) for y in (x, other))
        assert torch.equal(out, twin)
        assert torch.equal(out[:, 3:], enlarge(x, out.shape[-1], out.shape[-2])[:, 3:])


def test_a_batch_is_its_pictures_alone() -> None:
    for x in (noise(3, 13, 22), noise(3, 13, 22, 4)):
        both = upscale(Enlarging(BORDERED), x, Size(scale=3.3))
        assert torch.equal(both, torch.cat([upscale(Enlarging(BORDERED), y[None], Size(scale=3.3)) for y in x]))


@pytest.mark.parametrize("fix", ["wavelet", "adain"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_colours_are_the_enlarged_pictures_once_and_as_a_whole(fix: str, scale: float) -> None:
    """What a model shifts is taken away, up to the border; not by the canvas, which lacks what the result has."""
    x = noise(1, 21, 35) * 0.5 + 0.2
    shifted, plain = (upscale(Enlarging(FRAME, shift=s), x, Size(scale=scale), fix=fix) for s in (0.1, 0.0))
    # Values below 1 through some twenty additions.
    assert float((shifted - plain).abs().max()) < 1e-6
    flat = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(1, 3, 21, 35)
    out = upscale(Enlarging(FRAME, shift=-0.05), flat, Size(scale=scale), fix=fix)
    assert float((out - flat[..., :1, :1]).abs().max()) < 1e-5


@pytest.mark.parametrize(("wrap", "size"), [("x", (41, 48)), ("y", (40, 47)), ("both", (40, 48))])
@pytest.mark.parametrize("scale", [2, 4])
def test_a_texture_goes_on_over_its_borders(wrap: str, size: tuple[int, int], scale: int) -> None:
    """Moved by half of itself, it becomes what it becomes unmoved, moved by half of that: there is no seam."""
    x = noise(1, *size)
    dims = Wrap(wrap).dims
    moved = x.roll([x.shape[d] // 2 for d in dims], dims)
    out, other = (upscale(Enlarging(FRAME), y, Size(scale=scale), wrap=wrap) for y in (x, moved))
    assert out.shape == (1, 3, size[0] * scale, size[1] * scale)
    back = other.roll([-(out.shape[d] // 2) for d in dims], dims)
    # Two resamplings and a blur of values up to 1, in other places of a row.
    assert float((back - out).abs().max()) < 1e-5


def test_a_texture_s_frame_is_a_margin() -> None:
    x = noise(1, 40, 48)
    lq, width, height = canvas(x, Size(scale=4), FRAME, Wrap("x"))
    # 48 pixels become the next number that can repeat; 40 are the frame's business.
    assert lq.shape[-2:] == (48, 64 + 2 * MARGIN)
    assert torch.equal(lq[..., :MARGIN], lq[..., 64 : 64 + MARGIN])
    with pytest.raises(PGPError, match="1280 pixels with its margins, not 320"):
        uncanvas(lq, width, height, Wrap("x"), 4)


def test_results_that_are_too_small_are_refused() -> None:
    with pytest.raises(PGPError, match="cannot be cropped to 64x64"):
        uncanvas(torch.zeros(1, 3, 32, 32), 64, 64, enlarges=4)
