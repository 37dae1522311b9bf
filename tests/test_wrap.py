"""Textures that repeat: the frame, the sampling and the result repeat as they do, exactly where it can be exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pgp_core.cli import main
from pgp_core.errors import PGPError
from pgp_core.images.canvas import canvas, uncanvas
from pgp_core.images.color_fix import color_fix
from pgp_core.images.resampling import resample
from pgp_core.images.sizes import Size
from pgp_core.images.wrap import MARGIN, Wrap
from pgp_core.restorers.finding import CANVASES
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Tiling


def texture(seed: int, height: int = 40, width: int = 48) -> torch.Tensor:
    """A random texture that repeats: filtered in the frequency domain, which knows no borders."""
    noise = torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))
    fy, fx = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]
    x = torch.fft.ifft2(torch.fft.fft2(noise) / ((fy**2 + fx**2).sqrt() + 0.03)).real
    return ((x - x.mean()) / x.std() * 0.15 + 0.5).clamp(0, 1)[None]


# -- axes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x", "y", "both", "none"])
@pytest.mark.parametrize("margin", [1, 5, 17])
def test_margins_are_numpy_s_wrap(name: str, margin: int) -> None:
    """Also where they are wider than what repeats."""
    x = torch.rand(2, 3, 7, 6)
    pads = [(0, 0), (0, 0), *((margin, margin) if name in (axis, "both") else (0, 0) for axis in "yx")]
    wrap = Wrap(name)
    around = wrap.around(x, margin)
    assert np.array_equal(around.numpy(), np.pad(x.numpy(), pads, mode="wrap"))
    assert torch.equal(wrap.inner(around, margin), x)
    broken = around.clone()
    if name in ("x", "both"):
        broken[..., :margin] = float("nan")
    if name in ("y", "both"):
        broken[..., -margin:, :] = float("inf")
    assert torch.equal(wrap.repeated(broken, margin), around)


def test_another_axis_is_refused() -> None:
    with pytest.raises(PGPError, match="x, y, both or none, not 'z'"):
        Wrap("z")
    with pytest.raises(PGPError, match="'z'"):
        SampleOptions(wrap="z")


# -- canvas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [4, 2])
def test_resampling_sees_nine_copies(scale: int) -> None:
    x = texture(1, 9, 13)
    nine = resample(x.repeat(1, 1, 3, 3), 39 * scale, 27 * scale)
    middle = nine[..., 9 * scale : 18 * scale, 13 * scale : 26 * scale]
    # The filter's weights are rounded for each size by itself.
    assert (resample(x, 13 * scale, 9 * scale, Wrap("both")) - middle).abs().max() < 1e-5
    assert (resample(x, 13 * scale, 9 * scale) - middle).abs().max() > 0.01


@pytest.mark.parametrize("model", list(CANVASES))
@pytest.mark.parametrize("name", ["x", "y", "both"])
@pytest.mark.parametrize("size", [(40, 48), (7, 5), (33, 31)])
def test_the_canvas_repeats_and_comes_back(model: str, name: str, size: tuple[int, int]) -> None:
    x, wrap = texture(2, *size), Wrap(name)
    lq, width, height = canvas(x, Size(scale=4), CANVASES[model], wrap)
    assert (width, height) == (size[1] * 4, size[0] * 4)
    assert all(n % CANVASES[model].multiple == 0 for n in lq.shape[-2:])
    assert torch.equal(wrap.repeated(lq, MARGIN), lq)
    back = uncanvas(lq, width, height, wrap)
    expected = resample(x, width, height, wrap)
    assert back.shape == expected.shape
    whole = all(n * 4 % 32 == 0 for n in size)
    # What cannot repeat in latents is enlarged a little more and made smaller again.
    assert (back - expected).abs().max() <= (1e-6 if whole else 0.1)
    assert (back - expected).abs().mean() <= (1e-6 if whole else 0.01)


def test_rolling_the_picture_rolls_the_canvas() -> None:
    x, wrap = texture(3), Wrap("both")
    rolled = canvas(x.roll((5, 11), (-2, -1)), Size(scale=4), CANVASES["sdxl"], wrap)
    straight = canvas(x, Size(scale=4), CANVASES["sdxl"], wrap)
    difference = wrap.inner(rolled[0], MARGIN) - wrap.inner(straight[0], MARGIN).roll((20, 44), (-2, -1))
    assert difference.abs().max() < 1e-5


def test_a_canvas_without_margins_cannot_be_cut() -> None:
    lq, width, height = canvas(texture(1), Size(scale=4), CANVASES["sdxl"])
    with pytest.raises(PGPError, match="same wrap"):
        uncanvas(lq, width, height, Wrap("both"))


# -- colours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["wavelet", "adain"])
def test_the_colour_fix_knows_no_border(method: str) -> None:
    wrap = Wrap("both")
    pictures, reference = (wrap.around(texture(s, 96, 64), MARGIN) for s in (4, 5))
    fixed = wrap.inner(color_fix(pictures, reference, method, wrap=wrap), MARGIN)
    rolled = [wrap.around(texture(s, 96, 64).roll((17, 29), (-2, -1)), MARGIN) for s in (4, 5)]
    again = wrap.inner(color_fix(*rolled, method, wrap=wrap), MARGIN)
    # Adain's sums are rounded in another order.
    assert (again - fixed.roll((17, 29), (-2, -1))).abs().max() <= (0 if method == "wavelet" else 1e-6)


# -- results ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipelines() -> dict[str, NanoRestorer]:
    return {"one": NanoRestorer.load(), "many": NanoRestorer.load(one_step=False)}


CASES: dict[str, tuple[str, SampleOptions | None]] = {
    "one step": ("one", None),
    "steps": ("many", SampleOptions(steps=2, cfg=1.0, seed=2)),
    "steps in tiles": ("many", SampleOptions(steps=2, cfg=1.0, seed=2, tiling=Tiling(tile=256, overlap=64))),
}


def _seam(picture: torch.Tensor, dim: int) -> float:
    """Gradient energy over the wrapped border against that over every 16th row or column: the UNet's own grid, whose
    lines differ from those between them."""
    energy = (picture - picture.roll(1, dim)).square().mean([d for d in range(4) if d != dim])[::16]
    return float(energy[0] / energy[1:].mean())


@pytest.mark.parametrize("case", CASES)
def test_a_texture_repeats(case: str, pipelines: dict[str, NanoRestorer]) -> None:
    name, options = CASES[case]
    found: dict[str, list[float]] = {"both": [], "none": []}
    for wrap, seams in found.items():
        result = upscale(pipelines[name], texture(1), Size(scale=4), options, wrap=wrap)
        seams += [_seam(result, dim) for dim in (2, 3)]
    # One line of a random texture has up to 1.3 times the mean; a seam has nine times as much.
    assert max(found["both"]) < 1.6
    assert min(found["none"]) > 3


def test_rolling_the_texture_rolls_the_result(pipelines: dict[str, NanoRestorer]) -> None:
    """By what the UNet's grid and the canvas's share: 32 pixels."""
    x = texture(6)
    results = {}
    for wrap in ("both", "none"):
        straight, rolled = (
            upscale(pipelines["one"], p, Size(scale=4), wrap=wrap) for p in (x, x.roll((16, 24), (-2, -1)))
        )
        results[wrap] = (rolled - straight.roll((64, 96), (-2, -1))).abs()
    # Levels of 255: what the model sees beyond the margin, against a border that is none.
    assert results["both"].mean() * 255 < 0.5
    assert results["both"].max() * 255 < 4
    assert results["none"].mean() > 10 * results["both"].mean()


def test_along_one_axis_the_other_is_left_as_it_was(pipelines: dict[str, NanoRestorer]) -> None:
    result = upscale(pipelines["one"], texture(7), Size(scale=4), wrap="x")
    assert _seam(result, 3) < 1.6
    assert _seam(result, 2) > 3


def test_the_margins_of_a_latent_change_nothing(pipelines: dict[str, NanoRestorer]) -> None:
    """The start noise there is another for every size; what the model is given is what repeats."""
    seen: list[torch.Tensor] = []
    unet = pipelines["many"].unet
    handle = unet.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    try:
        upscale(pipelines["many"], texture(8), Size(scale=4), SampleOptions(steps=2, cfg=1.5), wrap="both")
    finally:
        handle.remove()
    assert len(seen) == 2
    for x in seen:
        assert torch.equal(Wrap("both").repeated(x, MARGIN // 4), x)


# -- the command line ------------------------------------------------------------------------------------------


def _save(picture: torch.Tensor, path: Path, alpha: bool = False) -> Path:
    levels = picture[0].mul(255).round().to(torch.uint8).movedim(0, -1).numpy()
    image = Image.fromarray(levels)
    if alpha:
        image.putalpha(image.convert("L"))
    image.save(path)
    return path


def test_wrap_on_the_command_line(tmp_path: Path) -> None:
    a = _save(texture(9), tmp_path / "a.png", alpha=True)
    for name, arguments in {"both": ["--wrap"], "x": ["--wrap", "x"], "none": []}.items():
        assert main(["upscale", str(a), "-o", str(tmp_path / name), *arguments]) == 0
        with Image.open(tmp_path / name / "a.png") as image:
            assert image.size == (192, 160) and image.mode == "RGBA"
            pixels = torch.from_numpy(np.array(image)).float().movedim(-1, 0)[None] / 255
        assert (_seam(pixels[:, :3], 3) < 2) == (name != "none")
        assert (_seam(pixels[:, 3:], 3) < 2) == (name != "none"), "alpha"
        assert (_seam(pixels[:, :3], 2) < 2) == (name == "both")


def test_a_picture_right_behind_wrap_is_said(tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as end:
        main(["upscale", "--wrap", "a.png", "-o", str(tmp_path)])
    assert end.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "x, y, both or none is possible, not a.png" in last and "behind the pictures" in last
