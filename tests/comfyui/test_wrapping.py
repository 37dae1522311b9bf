"""Textures that repeat in ComfyUI, against the command line; numbers and pictures that are none.

See ``checks/wrapping.py``.
"""

from __future__ import annotations

from math import prod

import pytest

from pgp_core.images.sizes import Size
from pgp_core.restorers.nano.restorer import NanoRestorer
from pgp_core.restorers.upscale import upscale
from pgp_core.sampling.options import SampleOptions
from pgp_core.tiling import Tiling

from .in_process import Checks

SEED, STEPS, CFG = 4, 2, 1.5


@pytest.mark.parametrize(
    ("wrap", "steps", "tile"),
    [("both", STEPS, 0), ("both", STEPS, 192), ("both", 1, 0), ("x", STEPS, 0), ("none", 1, 0)],
)
def test_the_nodes_do_what_the_command_line_does(wrap: str, steps: int, tile: int, checks: Checks) -> None:
    checks["wrap"]
    tensors = checks.tensors("wrap")
    pipeline = NanoRestorer.load(one_step=steps == 1)
    options = SampleOptions(steps, 1.0 if steps == 1 else CFG, SEED, tiling=Tiling(tile, 64))
    picture = tensors["picture"].movedim(-1, 1)
    expected = upscale(pipeline, picture, Size(scale=4), options, wrap=wrap)
    found = tensors[f"{wrap} {steps} {tile}"].movedim(-1, 1)
    assert found.shape == expected.shape == (1, 3, 48, 64)
    assert tensors[f"enlarged {wrap}"].shape == (1, 48, 64, 3)
    # Latents agree within 1e-4 in the UNet's scale; a pixel is half of a 21st of that.
    assert float((found - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize(("wrap", "steps", "tile"), [("both", STEPS, 192), ("both", 1, 0), ("none", 1, 0)])
def test_with_a_learned_decoder_they_do_too(wrap: str, steps: int, tile: int, checks: Checks) -> None:
    checks["wrap"]
    tensors = checks.tensors("wrap")
    pipeline = NanoRestorer.load(steps == 1, checks.folder / "own-nano")
    assert pipeline.decoder is not None
    options = SampleOptions(steps, 1.0 if steps == 1 else CFG, SEED, tiling=Tiling(tile, 64))
    expected = upscale(pipeline, tensors["picture"].movedim(-1, 1), Size(scale=4), options, wrap=wrap)
    found, plain = (tensors[f"{wrap} {steps} {tile}{kind}"].movedim(-1, 1) for kind in (" own", ""))
    assert float((found - plain).abs().mean()) > 0.005, "a decoder that changes nothing shows nothing"
    # What the pixels before it may differ by, times what its convolutions can make of that at most.
    most = prod(float(conv.weight.abs().sum((1, 2, 3)).max()) for conv in pipeline.decoder.convs)
    assert float((found - expected).abs().max()) <= 1e-5 * (1 + most)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("a canvas that does not repeat", ["wrap is both", "Canvas"]),
        ("one that repeats otherwise", ["wrap is both", "Canvas"]),
        ("no room for margins", ["wrap is both", "Canvas"]),
        ("colours without margins", ["margins", "same wrap"]),
        ("another reference", ["reference is the canvas"]),
        ("another axis", ["x, y, both or none"]),
    ],
)
def test_a_wrap_that_does_not_fit_is_a_sentence(case: str, words: list[str], checks: Checks) -> None:
    answer = checks["wrap"][case]
    assert answer is not None and "\n" not in answer
    for word in words:
        assert word in answer


def test_no_node_takes_what_is_no_number(checks: Checks) -> None:
    answers = checks["numbers"]
    assert len(answers) == 49
    for case, answer in answers.items():
        assert answer is not None, case
        assert "\n" not in answer and len(answer) < 200
        assert "not " in answer, case


def test_no_node_takes_what_is_no_picture(checks: Checks) -> None:
    answers = checks["images"]["answers"]
    assert len(answers) == 48
    for case, answer in answers.items():
        assert answer is not None, case
        assert "\n" not in answer and len(answer) < 320
    assert "in picture 2 of 3" in answers["Canvas, NaN"]
    assert "in picture 3 of 3" in answers["Colour Fix, infinity"]
    assert "not 2" in answers["Canvas, two channels"]


def test_what_is_beyond_black_and_white_is_clipped_and_said(checks: Checks) -> None:
    found = checks["images"]
    assert all(found["clipped"].values())
    assert len(found["told"]) == 6
    assert "PGP-DiffSR Canvas: the image goes from -" in found["told"][0]
    assert found["quiet"] == [], "an overshoot of a resampling is nothing to tell"


def test_grey_is_rgb(checks: Checks) -> None:
    assert checks["images"]["grey is RGB"]
    assert checks["images"]["grey fixed"] == 3
