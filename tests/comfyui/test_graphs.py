"""Graphs as people build them around a guided MODEL; see ``checks/graphs/`` for what is done there, always on nano."""

from __future__ import annotations

import pytest
import rounding

from pgp_core.restorers.nano import model as nano

from .in_process import Checks, Driver

SECONDS = 500
#: Files in ``checks/graphs/``.
SUBJECTS = ("areas", "windows", "counts", "schedules", "beside")
#: Features of size 2 are means of 64 pixels in another order: 64 roundings of half a unit in the last place of 2.
AVERAGES = 64 * 2**-23


@pytest.fixture(scope="module")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    return driver.run(tmp_path_factory.mktemp("graphs"), SECONDS, *(f"graphs.{s}" for s in SUBJECTS))


def _refused(found: list[str], *words: str) -> None:
    assert found, "it was taken"
    name, message = found
    assert name in ("GuidanceError", "PGPError"), message
    assert "\n" not in message
    for word in words:
        assert word in message, message


# -- areas ---------------------------------------------------------------------------------------------------

#: Where the areas lie: latent positions from the top and the left, height and width.
WHOLE = (0, 0, 17, 13)
AREAS = {
    "even": [(4, 2, 8, 8)],
    "odd": [(5, 3, 9, 7)],
    "one odd, to the edge": [(3, 4, 14, 9)],
    # 0.3 down and 0.25 across, half as high and 0.6 as wide, rounded.
    "percent": [(5, 3, 8, 8)],
    "mask bounds": [(7, 5, 9, 8)],
    "two of a size": [(1, 4, 8, 8), (8, 1, 8, 8)],
    "of three sizes": [(1, 1, 8, 8), (2, 7, 12, 6)],
}


@pytest.mark.parametrize("pictures", [1, 2])
@pytest.mark.parametrize("case", AREAS)
def test_an_area_meets_its_part_of_the_picture(case: str, pictures: int, checks: Checks) -> None:
    off, places = checks["areas"][f"{case}, {pictures} pictures"]
    assert off <= AVERAGES
    # The negative prompt is for all of it.
    assert {tuple(p[1:]) for p in places} == {WHOLE, *AREAS[case]}
    assert {p[0] for p in places} == {0, 1}


def test_areas_that_are_sampled_one_by_one(checks: Checks) -> None:
    off, places = checks["areas"]["apart"]
    assert off <= AVERAGES
    assert checks["areas"]["calls apart"] == 6, "each area, positive and negative, and the whole, twice"
    assert len(places) == 3


def test_an_area_as_large_as_the_picture_is_the_picture(checks: Checks) -> None:
    assert checks["area_of_all"]["difference"] * nano.SCALE <= rounding.LATENT


@pytest.mark.parametrize("case", ["tile", "canvas"])
def test_areas_are_cut_into_tiles_of_their_own(case: str, checks: Checks) -> None:
    off, places = checks["areas_in_tiles"][case]
    assert off <= AVERAGES
    found = {tuple(p[1:]) for p in places}
    # Of 24 x 20 positions at 5, 7 and at 6, 2.
    assert {(5 + y, 7 + x, 16, 16) for y in (0, 8) for x in (0, 4)} <= found
    assert {(6 + y, 2 + x, 16, 16) for y in (0, 8) for x in (0, 4)} <= found


def test_phases_are_exchanged_over_an_area(checks: Checks) -> None:
    assert checks["areas_in_tiles"]["canvas, sizes exchanged"] == [[12, 10], [17, 15]]


def test_areas_in_parts_of_a_batch(checks: Checks) -> None:
    off, places = checks["areas_in_tiles"]["in parts"]
    assert off <= AVERAGES
    assert len({p[0] for p in places}) == 2 and len(places) > 2


# -- context windows -----------------------------------------------------------------------------------------

WINDOWS = (
    "static", "without the frame before", "first frame in each", "strides", "a loop", "batched",
    "longer than the batch", "in tiles", "in parts",
)  # fmt: skip


@pytest.mark.parametrize("case", WINDOWS)
def test_a_window_meets_the_pictures_of_its_latents(case: str, checks: Checks) -> None:
    off, latents = checks["windows"][case]
    assert off <= AVERAGES
    assert set(latents) == set(range(7))


def test_windows_are_windows(checks: Checks) -> None:
    """The order in which core gives latents to the model: what the check above is about."""
    assert checks["windows"]["first frame in each"][1][6:10] == [0, 2, 3, 4]
    assert checks["windows"]["a loop"][1][-3:] == [6, 0, 1]


@pytest.mark.parametrize("case", ["height", "width", "width, without the position before"])
def test_windows_over_height_and_width_meet_their_part_of_the_picture(case: str, checks: Checks) -> None:
    off, places = checks["windows_over_height"][case]
    assert off <= AVERAGES
    assert len(places) > 1
    assert all(tuple(p[1:]) != WHOLE for p in places)


def test_windows_over_height_that_skip_positions_are_refused(checks: Checks) -> None:
    _refused(checks["windows_over_height"]["strides"], "which part of the picture", "context windows")


def test_one_picture_guides_every_window(checks: Checks) -> None:
    result = checks["windows_of_one_picture"]
    assert result["finite"]
    assert result["difference"] * nano.SCALE <= rounding.LATENT


# -- which picture for which latent --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "pictures", "latents"),
    [
        ("latent from batch", 4, 1),
        ("repeated", 4, 8),
        ("rebatched", 4, 3),
        ("in parts", 4, 8),
        ("in parts of as many", 2, 4),
    ],
)
def test_pictures_that_are_not_the_latents_are_refused(case: str, pictures: int, latents: int, checks: Checks) -> None:
    message = f"{pictures} pictures cannot guide {latents} latents"
    _refused(checks["counts"][case], message, "Image From Batch", "one for all")


def test_pictures_that_were_taken_as_the_latents_were(checks: Checks) -> None:
    result = checks["counts"]
    assert result["strength 0"] == []
    assert result["third alone"] * nano.SCALE <= rounding.LATENT
    assert result["one for all"] * nano.SCALE <= rounding.LATENT
    assert result["pictures matter"] > 0.01


def test_masks_of_adaptive_are_the_latents(checks: Checks) -> None:
    result = checks["counts_of_masks"]
    _refused(result["four"], "2 latents", "4 are sampled")
    _refused(result["one"], "2 latents", "1 are sampled")
    assert result["two"] == []
    _refused(result["area"], "PGP-DiffSR Adaptive", "mask")


def test_pictures_of_another_size(checks: Checks) -> None:
    result = checks["sizes"]
    assert result["twice"], "resized by core's Lanczos"
    assert result["cropped"]
    assert result["as VAE Encode"]
    # 33 x 25 positions where twice the latent is 34 x 26.
    assert result["rounded"] == []
    assert result["colours"] == []
    _refused(result["colours of another shape"], "PGP-DiffSR Colour Fix", "136 x 104", "104 x 136")
    _refused(result["another shape"], "68 x 68", "52 x 68", "distort")
    _refused(result["another shape, in tiles"], "68 x 68", "52 x 68", "distort")
    _refused(result["turned"], "68 x 52", "52 x 68", "distort")


def test_one_guided_model_in_two_samplers(checks: Checks) -> None:
    assert all(checks["two_samplers"])


def test_who_calls_the_model_for_a_piece_without_saying_which_is_refused(checks: Checks) -> None:
    result = checks["latents_taken_apart"]
    assert result["whole"] <= AVERAGES
    _refused(result["batch"], "1 latents", "2 pictures")
    _refused(result["width"], "7 x 17", "13 x 17", "PGP-DiffSR Tiling")


# -- schedules -----------------------------------------------------------------------------------------------

SCHEDULES = ("none", "zsnr", "EDM")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_range_is_one_of_the_schedule_that_is_sampled(schedule: str, checks: Checks) -> None:
    result = checks["range_on_another_schedule"][schedule]
    assert 0 < len(set(result["core"])) < 6
    assert sorted(set(result["guidance"])) == sorted(set(result["core"]))
    assert result["order"]


def test_schedules_differ(checks: Checks) -> None:
    found = checks["range_on_another_schedule"]
    assert len({str(sorted(set(found[s]["core"]))) for s in SCHEDULES}) > 1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_adaptive_waits_on_the_schedule_that_is_sampled(schedule: str, checks: Checks) -> None:
    same, behind, front = checks["adaptive_on_another_schedule"][schedule]
    assert same
    assert behind == front


# -- core's nodes beside guidance ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        "rescaled CFG", "self-attention guidance", "perp-neg", "perp-neg guider", "dual CFG", "nested CFG",
        "dual model", "dual model, negative unguided",
    ],
)  # fmt: skip
def test_every_chunk_of_a_guider_meets_its_picture(case: str, checks: Checks) -> None:
    off, calls = checks["guiders"][case]
    assert off <= AVERAGES
    assert calls >= 2


def test_a_model_guided_twice_over_is_cfg(checks: Checks) -> None:
    assert checks["guiders"]["dual model is CFG"] * nano.SCALE <= rounding.LATENT
    assert checks["guiders"]["afterwards"]


def test_guided_models_that_core_would_not_patch_are_refused(checks: Checks) -> None:
    found = checks["guiders"]["refused"]
    for case in ("negative guided", "guided twice"):
        _refused(found[case], "model_negative")
    for case in ("devices", "devices, tiled"):
        _refused(found[case], "MultiGPU CFG Split")


@pytest.mark.parametrize("case", ["guided", "guided in parts", "plain"])
def test_a_lora_by_hooks_is_the_lora(case: str, checks: Checks) -> None:
    result = checks["hooks"]
    assert result[case] * nano.SCALE <= rounding.LATENT
    assert result[f"{case}, LoRA matters"] > 0.01
    assert result[f"{case}, afterwards"] * nano.SCALE <= rounding.LATENT


def test_an_adapter_beside_guidance(checks: Checks) -> None:
    result = checks["adapter_beside_guidance"]
    assert max(result["off"]) <= AVERAGES
    assert [0, 5, 1, 16, 20] in result["areas"]
    assert result["unguided"] == 0
    assert result["control matters"] > 0.01
    assert result["guidance matters"] > 0.01
    assert result["one tile"]


def test_inpainting_beside_guidance(checks: Checks) -> None:
    result = checks["inpainting"]
    assert result["off"] <= AVERAGES
    assert result["one tile"]
    assert result["changed inside"] > 0.1
    for case in ("kept outside", "in tiles, kept outside", "differential"):
        assert result[case] <= rounding.LATENT, case


def test_deep_shrink_beside_guidance(checks: Checks) -> None:
    result = checks["deep_shrink"]
    assert result["finite"]
    assert set(result["heights"]) == {17, 9}
    assert result["off"] <= AVERAGES


def test_gligen_s_boxes_are_for_the_whole_picture(checks: Checks) -> None:
    result = checks["gligen"]
    assert result["off"] <= AVERAGES
    assert result["one tile"] == []
    _refused(result["tiles"], "PGP-DiffSR Tiling", "GLIGEN")
