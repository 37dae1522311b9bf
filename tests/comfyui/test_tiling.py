"""PGP-DiffSR Tiling in ComfyUI; see ``checks/tiling/`` for what is done there, always on nano."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import rounding

from . import pictures
from .comfy_server import RunFailed, Server
from .in_process import Checks, Driver

SECONDS = 500
#: Files in ``checks/tiling/``.
SUBJECTS = ("tiles", "phase", "overflow", "frames", "refusals")
#: Tiles of 16 positions with an overlap of 8, in a latent of 33 x 29.
PLACES = [[y, x] for y in (0, 8, 16) for x in (0, 8, 12)]
SIZES = [[2, 48, h, w] for h in (16, 17) for w in (16, 17)]
PHASES = ("tile", "canvas")
#: Nano's latents on the wire lie within [-1, 1].
ROUNDING = rounding.bound(rounding.NETWORK, 1.0)


@pytest.fixture(scope="module")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    return driver.run(tmp_path_factory.mktemp("tiling"), SECONDS, *(f"tiling.{s}" for s in SUBJECTS))


# -- results -------------------------------------------------------------------------------------------------


def test_a_picture_that_fits_is_sampled_bit_for_bit_as_without_tiling(checks: Checks) -> None:
    result = checks["tiling_larger_than_the_picture"]
    assert len(result) == 6
    for what, same in result.items():
        assert same, what


def test_tiles_of_a_model_without_context_beyond_the_overlap_are_the_whole(checks: Checks) -> None:
    result = checks["tiling_without_context"]
    assert result["size"] > 0.1
    # Weighted means of a few tiles.
    assert result["difference"] <= rounding.bound(16, 1.0)
    # A Gaussian counts the tiles' edges, too.
    assert result["gaussian"] <= 1e-2


def test_nano_in_tiles_is_close_to_nano(checks: Checks) -> None:
    result = checks["tiling_on_nano"]
    for phase in PHASES:
        assert 0 < result[phase] <= 0.2 * result["size"], phase
        assert result[f"{phase}, other order"] == 0


@pytest.mark.parametrize("phase", PHASES)
def test_an_interruption_is_answered_within_a_tile(phase: str, checks: Checks) -> None:
    result = checks["tiling_interrupted"][phase]
    assert result["raised"] == "InterruptProcessingException"
    assert result["tiles"] == 4
    assert result["features dropped"]
    assert result["afterwards"], "the next run differs"


# -- what tiles get ------------------------------------------------------------------------------------------


def test_another_pack_s_wrapper_gets_the_tiles(checks: Checks) -> None:
    result = checks["tiling_chains"]
    assert result["same"]
    assert result["places"] == PLACES * 2
    assert result["shapes"] == SIZES
    assert result["moved"]
    assert result["ended"] == 1


def test_conditioning_and_controlnet_are_cut_to_the_tile(checks: Checks) -> None:
    result = checks["tiling_crops"]
    assert [t[:2] for t in result["tiles"]] == PLACES
    for *_, right in result["tiles"]:
        assert all(right), right
    assert result["whole"] <= ROUNDING
    assert result["left as it was"], "the UNet takes features from the list; a second call needs them again"
    assert result["not refused without tiles"] == 0
    assert result["five dimensions"] == 0


def test_faithdiff_s_micro_conditioning_says_where_the_tile_lies(checks: Checks) -> None:
    result = checks["tiling_alignment"]
    assert result["tiles"] == 9
    # Against core's own embedding of those numbers.
    assert result["difference"] <= 1e-6
    assert result["tiles of an area"] == 4
    assert result["in an area"] <= 1e-6
    assert result["PEAM alone"] <= 1e-6
    assert result["whole"] and result["too short"]


def test_the_whole_canvas_s_phase_reaches_every_tile(checks: Checks) -> None:
    """Against an exchange in float64 over features that were blended by hand."""
    result = checks["tiling_whole_canvas"]
    assert result["none alone"]
    assert result["same features"]
    assert result["size"] > 1
    assert result["difference"] <= 1e-5 * result["size"]


@pytest.mark.parametrize("phase", PHASES)
def test_a_tile_that_is_known_already_is_not_run(phase: str, checks: Checks) -> None:
    result = checks["tiling_skips"][phase]
    assert result["told"] == PLACES
    assert result["shapes"] == SIZES
    assert result["sigmas"] == 1
    run = [p for p in PLACES if p[0] > 0]
    # The exchange over the canvas needs the first layers of all tiles.
    assert result["called"] == (run if phase == "tile" else PLACES + run)
    assert result["skipped"] <= ROUNDING


# -- memory, numbers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tile", "first", "found"), [("0", 72, 144), ("256", 64, 128)])
def test_tiles_are_halved_when_memory_runs_out(tile: str, first: int, found: int, checks: Checks) -> None:
    result = checks["tiling_out_of_memory"][tile]
    assert result["failed"] == [first]
    assert result["same as that size"]
    assert result["failed again"] == [], "the size was forgotten"
    assert result["the same again"]
    (line,) = result["lines"]
    assert f"{found} x {found} pixels" in line


def test_a_tile_size_is_not_carried_further(checks: Checks) -> None:
    assert checks["tiling_out_of_memory"]["a fresh one begins large"] == [72]


def test_what_never_fits_says_so(checks: Checks) -> None:
    assert "out of memory" in checks["tiling_out_of_memory"]["never fits"]


def test_automatic_tiles_begin_with_the_model_s_estimate(checks: Checks) -> None:
    shapes = checks["tiling_out_of_memory"]["estimated"]
    # Memory for a quarter of cond and uncond together is memory for half of one of them.
    side = max(max(s[2:]) for s in shapes)
    assert {s[0] for s in shapes} == {1}
    assert 0.7 * (72 * 52 / 2) ** 0.5 <= side <= (72 * 52 / 2) ** 0.5


def test_automatic_tiles_of_a_large_picture_stay_small_where_memory_is_plenty(checks: Checks) -> None:
    """Attention is quadratic; see pgp_core/tiling/automatic.py."""
    assert checks["tiling_out_of_memory"]["plenty, 384"] == [[384, 384]]
    ((height, width),) = checks["tiling_out_of_memory"]["plenty, 512"]
    assert 96 <= height == width <= 160


@pytest.mark.parametrize(
    ("case", "again"),
    [("tile 64, 0", [[8, 0]] * 2), ("tile 64, 1", [[8, 0]] * 2), ("tile 0, 0", [[0, 0]] * 2)],
)
def test_a_tile_that_overflows_is_run_again_in_float32(case: str, again: Any, checks: Checks) -> None:
    result = checks["tiling_not_finite"][case]
    assert result["finite"]
    assert result["in float32"] == again
    assert len(result["lines"]) == 1, "said once a run"


@pytest.mark.parametrize("dtype", ["torch.float16", "torch.bfloat16"])
def test_float32_is_float32(dtype: str, checks: Checks) -> None:
    result = checks["tiling_not_finite"]
    assert result[f"{dtype}, from float32"] <= 1e-6
    assert result[f"{dtype}, restored"]


def test_layers_of_8_bits_are_taken_out_of_their_range(checks: Checks) -> None:
    result = checks["tiling_float32_of_8_bits"]
    assert result["size"] > 10_000
    assert result["difference"] <= 1e-6 * result["size"]
    assert result["restored"]


# -- frames --------------------------------------------------------------------------------------------------


def test_a_batch_in_parts_is_the_batch(checks: Checks) -> None:
    """With a mask and a latent per picture, and with as many pictures for the guidance, or one."""
    result = checks["tiling_frames"]
    assert len(result["from the whole"]) == 6
    for case, differences in result["from the whole"].items():
        assert max(differences) <= ROUNDING, case
    assert result["unguided"] <= ROUNDING


def test_features_are_held_for_one_part_only(checks: Checks) -> None:
    result = checks["tiling_frames"]
    # Three steps each, whichever of Apply and Tiling comes first.
    assert result["held"] == [[2, 2, 2, 1, 1, 1]] * 2
    assert result["made"] == 6


def test_steps_are_numbered_through_and_the_last_has_all_pictures(checks: Checks) -> None:
    result = checks["tiling_frames"]
    assert result["steps"] == [[0, 6, 2], [1, 6, 2], [2, 6, 2], [3, 6, 1], [4, 6, 1], [5, 6, 1]]
    assert result["last"] <= ROUNDING


def test_each_part_has_its_own_conditioning(checks: Checks) -> None:
    result = checks["tiling_frames"]
    assert result["conditioning matters"] > 0.01
    assert max(result["conditioning"]) <= ROUNDING
    assert result["hints"] == [3, 1, 9, 7], "the graph's ControlNet was changed"


# -- one step ------------------------------------------------------------------------------------------------


def test_one_step_works_in_tiles(checks: Checks) -> None:
    result = checks["tiling_one_step"]
    assert result["whole"]
    assert result["calls"] == PLACES
    assert 0 < result["from the whole"] <= 0.2 * result["changes"]


def test_the_dial_works_in_tiles(checks: Checks) -> None:
    result = checks["tiling_one_step"]
    assert result["dial matters"] > 1e-3
    # Two predictions.
    assert result["dial"] <= 2 * ROUNDING
    assert result["dial in parts"] <= 2 * ROUNDING


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "case", "words"),
    [
        ("tiling_refusals", "overlap", ["96", "128", "overlap"]),
        ("tiling_refusals", "small", ["64", "32"]),
        ("tiling_refusals", "twice", ["already"]),
        ("tiling_refusals", "twice, another between", ["already"]),
        ("tiling_refusals", "video", ["video"]),
        ("tiling_refusals", "phase", ["tile or canvas", "none"]),
        ("tiling_refusals", "tiles within tiles", ["8 x 16", "16 x 16"]),
        ("tiling_crops", "refused", ["ControlNet", "29 x 33"]),
        ("tiling_not_finite", "never", ["float32"]),
        ("tiling_not_finite", "latent", ["latent", "before the model"]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(check: str, case: str, words: list[str], checks: Checks) -> None:
    name, message = checks[check][case]
    assert name == ("GuidanceError" if case == "tiles within tiles" else "PGPError"), message
    assert "\n" not in message
    for word in words:
        assert word in message


def test_an_area_is_tiled_by_itself(checks: Checks) -> None:
    """What its tiles meet is tested in test_graphs.py."""
    assert checks["tiling_refusals"]["area"] == []
    assert checks["tiling_refusals"]["area, unguided"]


# -- over HTTP -----------------------------------------------------------------------------------------------


def _prompt(**tiling: Any) -> dict[str, Any]:
    """Nano's nodes and core's, on a picture of 52 x 76."""
    inputs = {"tile": 0, "overlap": 16, "blend": "cosine", "phase": "tile", "frames": 0, **tiling}
    # fmt: off
    return {
        "nano": {"class_type": "PGPDiffSRLoadNano", "inputs": {}},
        "picture": {"class_type": "LoadImage", "inputs": {"image": "tiling.png"}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["picture", 0], "vae": ["nano", 2]}},
        "tiling": {"class_type": "PGPDiffSRTiling", "inputs": {"model": ["nano", 0], **inputs}},
        "apply": {"class_type": "PGPDiffSRApply", "inputs": {
            "model": ["tiling", 0], "model_patch": ["nano", 1], "image": ["picture", 0], "strength": 1.0,
            "start_percent": 0.0, "end_percent": 1.0}},
        "sample": {"class_type": "KSampler", "inputs": {
            "model": ["apply", 0], "positive": ["nano", 3], "negative": ["nano", 4], "latent_image": ["latent", 0],
            "seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "ddim_uniform", "denoise": 1.0}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["nano", 2]}},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["decode", 0], "filename_prefix": "tiling"}},
    }
    # fmt: on


def test_a_graph_runs_in_tiles(server: Server, tmp_path: Path) -> None:
    server.upload(pictures.save(pictures.smooth(3, 76, 52), tmp_path / "tiling.png"), "tiling.png")
    saved = [server.run(_prompt(**options))["outputs"]["save"]["images"] for options in ({}, {"tile": 32})]
    whole, tiled = (pictures.read(server.picture(image)) for (image,) in saved)
    assert whole.shape == tiled.shape == (1, 3, 76, 52)
    assert 0 < float((whole - tiled).abs().mean()) <= 0.05
    assert "tiles of 32 x 32 pixels" in server.log_tail(10**6)
    with pytest.raises(RunFailed) as failed:
        server.run(_prompt(tile=32, overlap=64))
    assert "tiles of 32 pixels cannot overlap by 64" in str(failed.value)
