"""What is seen of an enlarged picture does not depend on the colours that nobody saw in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from found_pictures import levels
from perfect import Perfect
from PIL import Image

from pgp_core.choices import COLOR_FIXES
from pgp_core.images.canvas import canvas, crop
from pgp_core.images.color_fix import color_fix
from pgp_core.images.reading import open_picture
from pgp_core.images.resampling import enlarge
from pgp_core.images.sizes import Size
from pgp_core.images.transparency import bleed, without_ringing
from pgp_core.images.writing import save_picture
from pgp_core.restorers.finding import CANVASES
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale

PAPERS = [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.1, 0.9, 0.3)]
#: Of the disc.
COLOUR = torch.tensor([0.9, 0.5, 0.2]).view(1, 3, 1, 1)


def disc_alpha(soft: float, size: int = 25) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    away = ((y - 12).float().square() + (x - 12.5).square()).sqrt()
    return (((9 - away) / soft + 0.5).clamp(0, 1) * 255).round().div(255)[None, None]


def hidden(kind: str, size: int = 25) -> torch.Tensor:
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    return {"black": torch.zeros(1, 3, size, size), "white": torch.ones(1, 3, size, size), "noise": noise}[kind]


def disc(soft: float, kind: str, inside: torch.Tensor = COLOUR) -> torch.Tensor:
    alpha = disc_alpha(soft)
    return torch.cat([torch.where(alpha > 0, inside.expand(1, 3, 25, 25), hidden(kind)), alpha], 1)


def seen(pictures: torch.Tensor, paper: tuple[float, float, float]) -> torch.Tensor:
    rgb, alpha = pictures[:, :3], pictures[:, 3:]
    return rgb * alpha + torch.tensor(paper).view(1, 3, 1, 1) * (1 - alpha)


@pytest.mark.parametrize("fix", COLOR_FIXES)
@pytest.mark.parametrize("soft", [0.01, 3.0], ids=["hard edge", "soft edge"])
@pytest.mark.parametrize("scale", [1.0, 1.7, 4.0])
def test_a_disc_has_no_rim(scale: float, soft: float, fix: str) -> None:
    results = [upscale(Perfect(), disc(soft, kind), Size(scale=scale), fix=fix) for kind in ("black", "white", "noise")]
    for result in results:
        assert torch.equal(result, results[0]), "the hidden colours are not looked at"
        for paper in PAPERS:
            # A disc of one colour over paper lies between the two, and is each pixel's mixture of them by alpha alone.
            expected = seen(torch.cat([COLOUR.expand_as(result[:, :3]), result[:, 3:]], 1), paper)
            assert (seen(result, paper) - expected).abs().max() < 1e-5


def test_alpha_has_no_outline_around_it() -> None:
    """Lanczos rings: where all pixels near are transparent there is nothing, where all are opaque there is no hole."""
    alpha = disc_alpha(0.01)
    large = enlarge(disc(0.01, "black"), 100, 100)[:, 3:]
    around = torch.nn.functional.pad(alpha, (1, 1, 1, 1), mode="replicate")
    for y in range(100):
        for x in range(100):
            top, left = int((y + 0.5) / 4 - 0.5 + 1), int((x + 0.5) / 4 - 0.5 + 1)
            near = around[0, 0, top : top + 2, left : left + 2]
            assert near.min() <= large[0, 0, y, x] <= near.max()


def test_alpha_keeps_ramps_and_sizes() -> None:
    ramp = torch.linspace(0, 1, 20).expand(1, 1, 9, 20)
    large = enlarge(torch.cat([torch.zeros(1, 3, 9, 20), ramp], 1), 70, 31)[0, 3, 15]
    expected = np.interp((np.arange(70) + 0.5) * 20 / 70 - 0.5, np.arange(20), ramp[0, 0, 0].numpy())
    assert np.abs(large.numpy() - expected)[12:-12].max() < 0.01
    same = without_ringing(ramp, ramp)
    assert torch.equal(same, ramp)
    smaller = torch.rand(1, 1, 4, 30)
    assert torch.equal(without_ringing(ramp, smaller), smaller)


def test_opaque_pixels_keep_their_colours_exactly() -> None:
    picture = disc(3.0, "noise", torch.rand(1, 3, 25, 25, generator=torch.Generator().manual_seed(2)))
    out = bleed(picture)
    opaque = (picture[:, 3:] == 1).expand(-1, 3, -1, -1)
    assert torch.equal(out[:, :3][opaque], picture[:, :3][opaque])
    assert torch.equal(out[:, 3:], picture[:, 3:])
    # What is seen of the others moves by half a level at most, and by what 8 bits round their colours by.
    moved = (out[:, :3] - picture[:, :3]).abs() * picture[:, 3:]
    assert moved.max() <= (0.5 + 0.5) / 255 + 1e-6


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_pictures_without_any_edge_stay_as_they_are(alpha: float) -> None:
    picture = torch.cat([torch.rand(2, 3, 9, 6), torch.full((2, 1, 9, 6), alpha)], 1)
    assert torch.equal(bleed(picture), picture)
    half = torch.cat([picture[:1], disc(0.01, "noise")[..., 5:14, 5:11]])
    assert torch.equal(bleed(half)[0], picture[0])


def test_colours_under_nothing_are_those_nearby() -> None:
    """Two halves with a gap between: each side of the gap gets the colour that is nearer, and there are no others."""
    picture = torch.zeros(1, 4, 16, 40)
    picture[:, 0, :, :10], picture[:, 2, :, 30:] = 1, 1
    picture[:, 3, :, :10], picture[:, 3, :, 30:] = 1, 1
    picture[:, :3, :, 10:30] = float("nan")
    out = bleed(picture)[0, :, 8]
    assert torch.isfinite(out).all()
    assert (out[0] + out[2] - 1).abs().max() < 1e-5 and out[1].abs().max() < 1e-5
    assert (out[0, 10:16] > 0.5).all() and (out[2, 24:30] > 0.5).all()


def test_colours_that_rounding_spoilt_do_not_show() -> None:
    """As programs save them that multiply colours by alpha in 8 bits: under alpha 1 there are 0 and 255 left."""
    alpha = disc_alpha(6.0)
    stored = (COLOUR * alpha * 255).round() / 255
    spoilt = torch.where(alpha > 0, (stored / alpha.clamp(min=1e-6)).clamp(0, 1) * 255, 0).round() / 255
    assert (spoilt - COLOUR)[(alpha > 0).expand(-1, 3, -1, -1)].abs().max() > 0.09
    result = enlarge(torch.cat([spoilt, alpha], 1), 100, 100)
    for paper in PAPERS:
        expected = seen(torch.cat([COLOUR.expand_as(result[:, :3]), result[:, 3:]], 1), paper)
        assert (seen(result, paper) - expected).abs().max() * 255 < 1.5


@pytest.mark.parametrize("method", COLOR_FIXES)
def test_colour_fix_counts_what_is_seen(method: str) -> None:
    generator = torch.Generator().manual_seed(3)
    picture, reference = (0.3 + 0.4 * torch.rand(1, 3, 25, 25, generator=generator) for _ in range(2))
    alpha = disc_alpha(3.0)
    for nothing in (1.0, float("nan")):
        first = color_fix(picture, torch.where(alpha > 0, reference, 0.0), method, alpha=alpha)
        assert torch.equal(color_fix(picture, torch.where(alpha > 0, reference, nothing), method, alpha=alpha), first)
    opaque = color_fix(picture, reference, method, alpha=torch.ones_like(alpha))
    assert (opaque - color_fix(picture, reference, method)).abs().max() < 1e-6
    if method == "adain":
        weights = (alpha / alpha.sum()).double()
        mean, wanted = ((x.double() * weights).sum((-1, -2)) for x in (first, reference))
        assert (mean - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("bits", [8, 16])
def test_files_through_the_real_model(bits: int, tmp_path: Path) -> None:
    pipeline, large = NanoRestorer.load(), []
    for kind in ("black", "noise"):
        stored = (disc(3.0, kind)[0].permute(1, 2, 0).numpy() * (255 if bits == 8 else 65535)).round()
        path = tmp_path / f"{kind}.png"
        if bits == 8:
            Image.fromarray(stored.astype(np.uint8)).save(path)
        else:
            pyvips = pytest.importorskip("pyvips")
            pyvips.Image.new_from_array(stored.astype(np.uint16)).copy(interpretation="rgb16").pngsave(str(path))
        picture = open_picture(path)
        large.append(picture.enlarged(upscale(pipeline, picture.channels(), Size(scale=3))[0]))
    for suffix in (".png", ".tif", ".webp"):
        results = []
        for result in large:
            save_picture(result, tmp_path / f"result{suffix}", lossless=True)
            results.append(open_picture(tmp_path / f"result{suffix}"))
        black, noise = results
        assert np.array_equal(black.pixels, noise.pixels) and np.array_equal(black.alpha, noise.alpha)
        assert black.pixels.dtype == (np.uint16 if bits == 16 and suffix != ".webp" else np.uint8)
        # Over any paper it differs from the disc by what the model does to a plane of one colour, and no more.
        seen_error = np.abs(black.pixels / black.white - COLOUR.view(3).numpy()) * (
            black.alpha[..., None] / black.white
        )
        assert seen_error.max() * 255 < 3


def test_a_transparent_picture_keeps_everything_else(tmp_path: Path) -> None:
    array = levels(12, 10, 4)
    array[..., 3] = 0
    Image.fromarray(array).save(tmp_path / "a.png")
    picture = open_picture(tmp_path / "a.png")
    result = upscale(Perfect(), picture.channels(), Size(scale=1.0), fix="none")
    large = picture.enlarged(result[0])
    assert not large.alpha.any() and np.array_equal(large.pixels, array[..., :3])


def test_the_canvas_of_four_channels() -> None:
    """As the node makes it: the frame goes around alpha too."""
    lq, width, height = canvas(disc(0.01, "noise"), Size(scale=2.0), CANVASES["sdxl"])
    assert lq.shape == (1, 4, 64, 64) and (width, height) == (50, 50)
    assert torch.equal(crop(lq, width, height), enlarge(disc(0.01, "black"), 50, 50))
