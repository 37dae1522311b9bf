"""What other nodes put on a MODEL, beside tiles, guidance and plans; see ``checks/tiling/`` for what is done there.

``PGP_COMFY_COMPILE=1 pytest -c tests/pytest.ini tests/comfyui/test_other_patches.py`` also compiles a network.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from .in_process import Checks, Driver

SECONDS = 500
MODULES = (
    "tiling.remembering", "tiling.left_behind", "tiling.beside", "tiling.memory", "tiling.options", "quantised",
)  # fmt: skip
COMPILE = "PGP_COMFY_COMPILE" in os.environ
#: Of latents up to 4: the same operations in float32, summed in another order; a few hundred units in the last place.
ROUNDING = 300 * 4 * 2**-24
#: At which a patch that is passed over would show. One on the middle of nano does little.
MATTERS, LITTLE = 1e-3, 9e-5


@pytest.fixture(scope="module")
def checks(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    return driver.run(tmp_path_factory.mktemp("patches"), SECONDS, *MODULES)


@pytest.fixture(scope="module")
def compiled(driver: Driver, tmp_path_factory: pytest.TempPathFactory) -> Checks:
    return driver.run(tmp_path_factory.mktemp("compiled"), SECONDS, "tiling.compiled")


# -- patches that remember -----------------------------------------------------------------------------------


def test_a_tile_gets_what_it_gets_alone_with_a_patch_of_its_own(
    checks: Checks, measured: Callable[[str, float], None]
) -> None:
    """Against core sampling each tile in a MODEL of its own, blended by hand at every step."""
    result = dict(checks["tiling_remembering"])
    assert result.pop("tiles") == [[0, 16], [8, 17]]
    assert len(result) == 18
    for name, (difference, _) in result.items():
        assert difference <= ROUNDING, name
    measured("tiles and tiles alone", max(d for d, _ in result.values()))
    for name, (_, matters) in result.items():
        assert matters >= (LITTLE if name in ("PerturbedAttentionGuidance", "block") else MATTERS), name


@pytest.mark.parametrize("name", ["none", "EasyCache", "closure"])
def test_so_it_is_with_guidance_and_a_plan(name: str, checks: Checks) -> None:
    difference, matters = checks["tiling_remembering_guided"][name]
    assert difference <= ROUNDING
    assert matters >= MATTERS or name == "none"


def test_what_sees_the_whole_picture_sees_it(checks: Checks) -> None:
    """Against the same patch on a MODEL that another wrapper calls tile by tile."""
    result = checks["tiling_outside"]
    assert len(result) == 8
    for name, (difference, matters) in result.items():
        assert difference <= ROUNDING, name
        assert matters >= MATTERS, name


def test_a_patch_is_left_as_it_was_found(checks: Checks) -> None:
    result = checks["tiling_afterwards"]
    assert result["plain numbers"]
    assert result["nothing of a tile"]
    assert result["the same again"]
    assert result["in parts"] <= ROUNDING


# -- what is told beside the latent --------------------------------------------------------------------------


def test_a_tile_is_masked_as_its_part_of_the_picture(checks: Checks) -> None:
    """Set Latent Noise Mask, and Differential Diffusion whose masks are worked out by hand for every step."""
    result = checks["tiling_noise_masks"]
    assert len(result) == 7
    for name, (difference, matters) in result.items():
        assert difference <= ROUNDING, name
        assert matters >= MATTERS, name


@pytest.mark.parametrize("name", ["HypernetworkLoader", "ModelComputeDtype", "unCLIPConditioning"])
@pytest.mark.parametrize("order", ["", ", behind"])
def test_a_tile_gets_what_it_gets_alone_beside(name: str, order: str, checks: Checks) -> None:
    difference, matters = checks["tiling_beside"][name + order]
    if name == "ModelComputeDtype":
        # The same operations in bfloat16, then one blend in float32 of latents below 0.2.
        assert difference <= 8 * 0.2 * 2**-24
        assert matters >= 100 * difference and matters >= 1e-5
    else:
        assert difference <= ROUNDING
        assert matters >= LITTLE


@pytest.mark.parametrize("case", ["overflow", "regions"])
def test_half_precision_by_a_node_is_left_where_it_overflows_and_prompts_have_masks(case: str, checks: Checks) -> None:
    difference, matters = checks["tiling_beside"][case]
    assert difference <= ROUNDING
    assert matters >= LITTLE


@pytest.mark.parametrize("case", ["replaced", "couple", "guided"])
def test_a_patch_with_a_mask_over_the_picture_is_refused_by_name(case: str, checks: Checks) -> None:
    name, message = checks["tiling_masks_of_patches"][case]
    assert name == "PGPError"
    assert ("_Attention" if case == "replaced" else "couple") in message
    assert "mask of 64 x 96" in message and "without tiles" in message and "\n" not in message


def test_a_mask_is_in_nobodys_way_in_one_tile_or_where_it_is_even(checks: Checks) -> None:
    result = checks["tiling_masks_of_patches"]
    assert result["replaced, one tile"] == result["couple, one tile"] == result["even"] == 0


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["SAG", "SAG, behind"])
def test_what_reads_a_tile_for_the_picture_is_refused_by_name(case: str, checks: Checks) -> None:
    name, message = checks["tiling_left_behind"][case]
    assert name == "PGPError"
    assert "SelfAttentionGuidance" in message and "without tiles" in message and "\n" not in message


@pytest.mark.parametrize("case", ["SAG, skipped", "SAG, skipped behind", "SAG, not in the file"])
def test_what_reads_a_removed_block_is_refused_by_name(case: str, checks: Checks) -> None:
    name, message = checks["tiling_left_behind"][case]
    assert name == "PGPError"
    assert "SelfAttentionGuidance" in message and "block 0 of the middle" in message and "\n" not in message


def test_what_does_not_need_that_is_not_refused(checks: Checks) -> None:
    result = checks["tiling_left_behind"]
    assert result["SAG in one tile"]
    assert result["SAG, block kept"] == []
    assert result["PAG, skipped"] == []


@pytest.mark.parametrize("phase", ["tile", "canvas"])
def test_features_of_another_size_are_refused_in_a_sentence(phase: str, checks: Checks) -> None:
    cases = {k: v for k, v in checks["tiling_left_behind"].items() if k.startswith(f"Deep Shrink, {phase}")}
    assert len(cases) == 4
    for case, (name, message) in cases.items():
        assert name == "GuidanceError", case
        assert "4 x 4" in message and "8 x 8" in message and "\n" not in message


# -- memory, compilers, packed weights -----------------------------------------------------------------------


def test_a_model_that_is_loaded_in_part_gives_the_same(checks: Checks) -> None:
    result = checks["tiling_memory"]
    none, some, most = result["not loaded"]
    assert none == 0 < some < most
    assert result["--lowvram"] == result["--novram"] == 0


def test_a_compiled_network_is_not_told_of_tiles(checks: Checks) -> None:
    result = checks["tiling_compiled_options"]
    assert result["None"]["calls"] < result["tile"]["calls"] < result["canvas"]["calls"]
    assert result["None"]["names"] == result["tile"]["names"] == result["canvas"]["names"]


@pytest.mark.skipif(not COMPILE, reason="takes a minute; PGP_COMFY_COMPILE=1 asks for it")
def test_one_compiled_network_goes_with_and_without_tiles_and_plans(compiled: Checks) -> None:
    result = dict(compiled["tiling_compiled"])
    assert min(result.pop("matters")) > 1e-5
    # The backend runs the operations as they are.
    assert len(result) == 7
    assert set(result.values()) == {0}


@pytest.mark.parametrize("case", ["guided", "tiled", "pruned", "tiled, pruned", "one step"])
def test_packed_weights_give_what_their_numbers_give(case: str, checks: Checks) -> None:
    assert checks["quantised"]["packed"] > 100
    assert checks["quantised"][case] <= ROUNDING


def test_packed_weights_count_as_what_they_stand_for(checks: Checks) -> None:
    result = checks["quantised"]
    packed, plain = result["saving"]
    assert packed == plain and packed["skipped"] == 11
    packed, plain = result["blocks"]
    assert packed == plain and len(packed) == 17


def test_packed_weights_have_the_identity_of_their_model(checks: Checks) -> None:
    result = checks["quantised"]
    assert result["report of it on nano"] == result["report of nano on it"] == []
    assert result["report of it on another"][0] == "ReportError"


def test_packed_weights_are_not_saved(checks: Checks) -> None:
    name, message = checks["quantised"]["save"]
    assert name == "CheckpointError"
    assert "quantised" in message and "GGUF" in message and "\n" not in message
