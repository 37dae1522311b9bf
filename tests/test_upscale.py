"""The whole way of a picture, with a stand-in for the model: sizes, batches, memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect import Perfect

from pgp_core.choices import COLOR_FIXES
from pgp_core.images.sizes import Size
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale

#: What tests of several files share.
SUPPORT = str(Path(__file__).parent / "support")


def _multiple(canvas: torch.Tensor) -> None:
    assert canvas.shape[-1] % 16 == canvas.shape[-2] % 16 == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 70), st.sampled_from([1.0, 1.5, 3.3]), st.sampled_from(COLOR_FIXES))
def test_sizes_and_constant_pictures(width: int, height: int, scale: float, fix: str) -> None:
    colour = torch.tensor([0.1, 0.5, 1.0]).view(1, 3, 1, 1).expand(1, 3, height, width)
    out = upscale(Perfect(_multiple), colour, Size(scale=scale), fix=fix)
    assert out.shape == (1, 3, *(max(1, int(n * scale + 0.5)) for n in (height, width)))
    assert (out - torch.tensor([0.1, 0.5, 1.0]).view(1, 3, 1, 1)).abs().max() < 1 / 255


def test_constant_pictures_stay_constant_with_the_real_model() -> None:
    """To the border: that is what the canvas's frame is for."""
    pipeline = NanoRestorer.load()
    for colour in ((20, 40, 230), (230, 20, 20), (0, 0, 0), (255, 255, 255), (128, 128, 128)):
        x = torch.tensor(colour).float().view(1, 3, 1, 1).expand(1, 3, 24, 30) / 255
        out = upscale(pipeline, x, Size(scale=4))
        assert (out - x[..., :1, :1]).abs().max() * 255 <= 1, colour


@pytest.mark.parametrize("one_step", [True, False], ids=["one step", "20 steps"])
def test_saturated_fields_of_a_chart_keep_their_colour(one_step: bool) -> None:
    fields = torch.tensor([[0, 0, 1], [1, 0, 0], [0, 0, 0.6], [0.8, 0, 0.1], [0, 0.2, 1], [1, 1, 0]])
    chart = fields.T.reshape(3, 2, 3).repeat_interleave(24, 1).repeat_interleave(24, 2)[None]
    out = upscale(NanoRestorer.load(one_step=one_step), chart, Size(scale=4))
    for i, field in enumerate(fields):
        top, left = 96 * (i // 3) + 16, 96 * (i % 3) + 16
        mean = out[0, :, top : top + 64, left : left + 64].mean((1, 2))
        assert (mean - field).abs().max() * 255 < 2, field


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's peak memory")
@pytest.mark.parametrize("fix", COLOR_FIXES)
def test_memory_beside_the_model_is_six_canvases_at_most(fix: str, tmp_path: Path) -> None:
    """In a process of its own, from the file to the file; the stand-in holds one result, which counts too."""
    code = f"""
import resource, sys, pathlib, numpy as np
from PIL import Image
import torch
torch.set_num_threads(1)
from pgp_core.images.sizes import Size
from pgp_core.images.reading import open_picture
from pgp_core.images.writing import save_picture
from pgp_core.restorers.upscale import upscale
sys.path.insert(0, sys.argv[2])
from perfect import Perfect
def run(side):
    folder = pathlib.Path(sys.argv[1])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 4)).astype("uint8")).save(folder / "a.png")
    picture = open_picture(folder / "a.png")
    result = upscale(Perfect(), picture.rgb(), Size(scale=4), fix="{fix}")
    save_picture(picture.enlarged(result[0]), folder / "b.png")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = run(32)
print((run(512) - before) / (2048 * 2048 * 3 * 4))
"""
    out = subprocess.run(
        [sys.executable, "-c", code, tmp_path, SUPPORT], capture_output=True, text=True, check=True, timeout=300
    )
    assert float(out.stdout) <= 6, out.stdout
