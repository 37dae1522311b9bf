"""The pack's code in ComfyUI's Python, check by check; see ``checks/`` for what is done there.

Latents are compared in the UNet's scale, where they have about unit variance. ComfyUI's Python has its own
torch, often another release than this one's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import rounding
import torch
import trained_lora

from pgp_core.codecs.decoder_file import read_decoder
from pgp_core.restorers.nano import model as nano
from pgp_core.sampling.euler import draw_noise

from . import diffusers_side
from .in_process import Checks
from .isolated import HIDDEN


@pytest.fixture
def agree(
    measured: Callable[[str, float], None], request: pytest.FixtureRequest
) -> Callable[[torch.Tensor, diffusers_side.Both], None]:
    """Asserts that a latent from ComfyUI, in its own scale, is the one from diffusers."""

    def compare(comfyui: torch.Tensor, diffusers: diffusers_side.Both) -> None:
        difference = rounding.difference(comfyui * nano.SCALE, diffusers.exact)
        measured(request.node.name.removeprefix("test_"), difference)
        allowed = rounding.allowed(diffusers.rounded, diffusers.exact)
        assert difference <= allowed, f"ComfyUI and diffusers differ by {difference:.2e}, more than {allowed:.2e}"

    return compare


# -- both backbones ------------------------------------------------------------------------------------------


def test_both_backbones_agree(checks: Checks, agree: Any) -> None:
    result, tensors = checks["parity"], checks.tensors("parity")
    assert result["shape"] == [2, 48, 17, 13]
    assert result["guidance changes"] > 0.1, "with guidance that changes nothing there is nothing to compare"
    agree(tensors["latent"], diffusers_side.both(diffusers_side.sampled, tensors))


def test_both_backbones_draw_the_same_noise(checks: Checks) -> None:
    noise = checks.tensors("parity")["noise"]
    assert torch.equal(noise, draw_noise(noise.shape, diffusers_side.SEED))


def test_both_backbones_agree_in_one_step_with_the_s1_lora(checks: Checks, agree: Any) -> None:
    result, tensors = checks["one_step"], checks.tensors("one_step")
    assert result["changes"] > 0.01
    agree(tensors["z_h"], diffusers_side.both(diffusers_side.restored_once, tensors))


# -- sampling ------------------------------------------------------------------------------------------------


def test_cond_and_uncond_apart_give_the_same_as_together(checks: Checks) -> None:
    result = checks["cond_and_uncond_apart"]
    assert [sorted(c) for c in result["together"]] == [[0, 1]] * 4
    assert sorted(result["apart"]) == [[0]] * 4 + [[1]] * 4
    # Convolutions and products of another batch size round differently.
    assert result["difference"] * nano.SCALE <= rounding.LATENT, result["difference"]


def test_guidance_is_loaded_by_core_and_its_features_are_made_once_a_run(checks: Checks) -> None:
    result = checks["model_management"]
    assert result["loaded"] == [True] * 8
    assert result["held"] == [True] * 8
    assert result["feature calls a run"] == [1, 1]
    assert result["dropped after"] == [True, True]


def test_strength_zero_is_the_unguided_model_bit_for_bit(checks: Checks) -> None:
    result = checks["strength_zero"]
    assert result["zero is unguided"]
    assert result["half differs from unguided"] > 1e-3
    assert result["half differs from whole"] > 1e-3


def test_guidance_acts_within_its_range_only(checks: Checks) -> None:
    result = checks["range"]
    assert result["timesteps"] == [751, 501, 251, 1]
    assert result["fused at"] == [501] * result["sites"] + [251] * result["sites"]
    assert result["from guided throughout"] > 1e-3
    assert result["from the composition"] * nano.SCALE <= rounding.LATENT, result["from the composition"]


def test_the_range_means_the_same_on_both_backbones(checks: Checks, agree: Any) -> None:
    checks["range"]
    tensors = checks.tensors("range")
    agree(tensors["latent"], diffusers_side.both(lambda t: diffusers_side.sampled(t, 0.3, 0.8), tensors))


def test_a_picture_of_another_size_is_resized(checks: Checks) -> None:
    result = checks["picture_of_another_size"]
    assert result["finite"]
    assert result["shape"] == [1, 48, 17, 13]


def test_features_are_made_again_for_a_latent_of_another_size(checks: Checks) -> None:
    # A feature position of PEAM's site has 8 pixels; a canvas that gives as many positions is left as it is.
    assert checks["features_for_another_size"]["canvases"] == [[68, 52], [40, 32]]


# -- state ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("check", "raised"), [("interrupted", "InterruptProcessingException"), ("failed", "Broken")])
def test_a_stopped_run_leaves_the_model_as_it_was(check: str, raised: str, checks: Checks) -> None:
    result = checks[check]
    assert result["raised"] == raised
    assert result["steps"] == [1, 2, 3]
    for unchanged in ("weights", "guidance's weights", "options", "patches", "interruption cleared"):
        assert result[unchanged], unchanged
    assert result["features dropped"]


@pytest.mark.parametrize("check", ["interrupted", "failed"])
def test_the_run_after_a_stopped_one_is_exactly_a_fresh_model_s(check: str, checks: Checks) -> None:
    result = checks[check]
    assert result["pictures matter"] > 1e-3
    for run in ("another picture", "the same guided model", "unguided"):
        assert result[run], run


def test_core_can_load_the_model_again_for_hooks(checks: Checks) -> None:
    assert checks["clone_for_hooks"]["weights"]


# -- dtypes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("picture", ["textured", "grey", "black", "white"])
@pytest.mark.parametrize(
    "kind", ["float32/float32", "bfloat16/float32", "bfloat16/own", "float16/float32", "float16/own"]
)
def test_every_weight_dtype_samples_finite(kind: str, picture: str, checks: Checks) -> None:
    result = checks["dtypes"][f"{kind}/{picture}"]
    assert result["stored"] == [f"torch.{kind.partition('/')[0]}"]
    assert result["finite"]
    # A residual in [-2, 2], in the latent format's unscaled units, with room for a model that is not trained.
    assert result["largest"] < 20


def test_peam_computes_in_float32_for_a_half_precision_unet(checks: Checks) -> None:
    result = checks["half_precision_features"]
    assert result["hidden"] > 1e6, "nothing here would overflow"
    assert result["dtype"] == "torch.float16"
    # One rounding to float16, at the end.
    assert result["from float32"] <= result["largest"] * 2**-11


def test_features_of_a_large_canvas_are_made_in_tiles(checks: Checks) -> None:
    result = checks["features_in_tiles"]
    assert result["whole"]["equal"]
    for name, dtype, error in (("tiled", "float32", 1e-4), ("tiled half", "bfloat16", 0.1)):
        tiled = result[name]
        assert (tiled["device"], tiled["dtype"]) == ("cpu", f"torch.{dtype}")
        assert tiled["shape"] == [1, 32, 64, 48]
        assert tiled["difference"] < error
    # Float16 overflows, so the stage is made in float32.
    assert result["overflowing"]["finite"]
    assert result["overflowing"]["dtype"] == "torch.float32"
    # Room for four bytes a number, then for two, in a tile of 64 x 64 instead of 128 x 96 pixels.
    whole, tiled, half, _ = result["asked"]
    assert half < tiled < whole / 2.9


# -- memory --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", ["flash", "in pieces"])
def test_the_estimate_of_a_call_s_memory_is_nano_s_own(attention: str, checks: Checks) -> None:
    """By it core and automatic tiles decide what fits: as if nano were as wide as SDXL, it was 13 and 22 times what
    is needed."""
    found = checks["estimate"][attention]
    assert found["live"] <= found["estimated"] <= 5 * found["live"], found


def test_the_estimate_of_full_size_is_core_s(checks: Checks) -> None:
    ours, core_s = checks["estimate"]["full size"]
    assert ours == core_s


# -- one step ------------------------------------------------------------------------------------------------


def test_one_step_is_the_lq_latent_minus_the_unet_s_output(checks: Checks) -> None:
    difference = checks["one_step"]["from the direct call"]
    assert difference * nano.SCALE <= rounding.LATENT, difference


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_one_step_of_every_prediction(prediction: str, checks: Checks) -> None:
    difference = checks["one_step_of_every_prediction"][prediction]
    assert difference * nano.SCALE <= rounding.LATENT, difference


def test_core_s_loader_finds_every_layer_of_the_s1_lora(checks: Checks) -> None:
    result = checks["one_step"]
    assert result["layers in the file"] > 0
    assert result["layers patched"] == result["layers in the file"]
    assert result["not loaded"] == []


def test_a_lora_made_by_training_is_the_same_by_core_s_loader_and_by_peft(
    checks: Checks, measured: Callable[[str, float], None]
) -> None:
    result, tensors = checks["lora_by_peft"], checks.tensors("lora_by_peft")
    trained_lora.all_taken(result)
    assert result["changes"] > 0.1
    difference = float((tensors["output"] - diffusers_side.by_peft(tensors["x"])).abs().max())
    measured("lora by core and by PEFT, nano", difference)
    assert difference <= rounding.LATENT


def test_the_dial_weighs_two_predictions(checks: Checks) -> None:
    result = checks["dial"]
    assert result["semantic changes"] * nano.SCALE > 0.1
    assert result["1, 1 is both"], "one call, as without the dial"
    assert result["1, 0 is the pixel LoRA"] == 0
    for strengths in (
        "1.0, 0.5",
        "0.6, 1.4",
        "0.0, 1.0",
        "0.5, 0.5",
        "CFG",
        "BasicGuider",
        "merged without pixel_model",
    ):
        assert result[strengths] * nano.SCALE <= rounding.LATENT, strengths
    for after in ("both after that", "pixel after that", "features dropped"):
        assert result[after], after


@pytest.mark.parametrize(
    ("case", "word"), [("no pixel_model", "pixel_model"), ("out of range", "0 to 10"), ("another kind", "another kind")]
)
def test_a_dial_that_lacks_something_is_refused(case: str, word: str, checks: Checks) -> None:
    message = checks["dial"]["refused"][case]
    assert word in message and "\n" not in message


def test_the_lora_may_stand_before_or_behind_the_guidance(checks: Checks) -> None:
    assert checks["one_step_with_guidance_before_lora"]["difference"] == 0


def test_one_step_takes_what_the_model_carries(checks: Checks) -> None:
    """Through clones, guidance and LoRAs a nano MODEL stays nano, whose own timestep is the one of its LoRA."""
    result = checks["model_s_own"]
    assert set(result["families"].values()) == {"pgp-nano"}
    assert result["sigmas"] and result["difference"] == 0


def test_one_step_refuses_a_noise_mask(checks: Checks) -> None:
    message = checks["noise_mask"]["message"]
    assert message is not None
    assert "mask" in message
    assert "\n" not in message


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "error", "words"),
    [
        ("foreign patch", "GuidanceError", ["MODEL_PATCH", "loader"]),
        ("guided twice", "GuidanceError", ["already", "once"]),
        ("other channels", "GuidanceError", ["320", "64", "channels"]),
        ("other architecture", "GuidanceError", ["channels"]),
        ("end before start", "GuidanceError", ["0.4", "0.6"]),
        ("grey picture", "GuidanceError", ["RGB"]),
        ("truncated " + nano.UNET_FILE, "CheckpointError", [nano.UNET_FILE]),
        ("truncated " + nano.GUIDANCE_FILE, "CheckpointError", [nano.GUIDANCE_FILE]),
        ("truncated " + nano.CONTEXTS_FILE, "CheckpointError", [nano.CONTEXTS_FILE]),
        ("missing " + nano.UNET_FILE, "CheckpointError", [nano.UNET_FILE, "missing"]),
        ("missing " + nano.GUIDANCE_FILE, "CheckpointError", [nano.GUIDANCE_FILE, "missing"]),
        ("missing " + nano.CONTEXTS_FILE, "CheckpointError", [nano.CONTEXTS_FILE, "missing"]),
        ("damaged decoder", "CheckpointError", [nano.DECODER_FILE, "damaged"]),
        ("swapped files", "CheckpointError", [nano.UNET_FILE]),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(case: str, error: str, words: list[str], checks: Checks) -> None:
    found = checks["refusals"][case]
    assert found, "it was taken"
    name, message = found
    assert name == error, message
    assert "\n" not in message
    for word in words:
        assert word in message


# -- VAE, previews -------------------------------------------------------------------------------------------


def test_the_vae_is_lossless(checks: Checks) -> None:
    result = checks["vae"]
    assert result["latent"] == [2, 48, 40, 56]
    low, high = result["range"]
    assert -1 <= low < 0 < high <= 1
    # x * 2 - 1 and back, in float32.
    assert result["round trip"] <= 2**-23, result["round trip"]


def test_the_vae_crops_what_its_factor_does_not_divide_as_core_s_do(checks: Checks) -> None:
    assert checks["vae"]["latent of 37 x 39"] == [1, 48, 9, 9]


def test_tiles_change_nothing(checks: Checks) -> None:
    # Tiles overlap and are averaged with weights.
    assert checks["vae"]["encode tiled"] <= rounding.LATENT, checks["vae"]["encode tiled"]
    assert checks["vae"]["decode tiled"] <= rounding.LATENT, checks["vae"]["decode tiled"]


def test_a_learned_decoder_draws_what_it_does_outside_comfyui(checks: Checks) -> None:
    result, tensors = checks["decoder"], checks.tensors("decoder")
    decoder = read_decoder(checks.folder / "drawn-decoder.safetensors")
    for latent, decoded in (("latent", "decoded"), ("larger", "larger_decoded")):
        picture = torch.nn.functional.pixel_shuffle(tensors[latent], 4)
        rounded = (decoder.float()(picture) / 2 + 0.5).clamp(0, 1)
        exact = (decoder.double()(picture.double()) / 2 + 0.5).clamp(0, 1)
        found = tensors[decoded].movedim(-1, 1)
        assert float((found - (picture / 2 + 0.5)).abs().mean()) > 0.01
        assert rounding.difference(found, exact) <= rounding.allowed(rounded, exact)
    assert result["loaded"] == [True] * 7


def test_a_learned_decoder_draws_the_same_in_core_s_tiles(checks: Checks) -> None:
    result = checks["decoder"]
    assert result["same in core's tiles"] == [True, True]
    assert result["encode tiled"] <= rounding.LATENT
    # Of 512 x 512 pixels: before and after, and two layers of a tile with what it overlaps by.
    assert result["memory"] == 4 * (2 * 3 * 512**2 + 2 * 8 * 518**2)


def test_previews_have_the_canvas_s_size(checks: Checks) -> None:
    result = checks["preview"]
    assert result["previewer"] == "Latent2RGBPreviewer"
    assert result["shown"] == [["JPEG", "RGB", 13 * 4, 17 * 4]] * 2


# -- isolation -----------------------------------------------------------------------------------------------


def test_none_of_it_imported_the_hidden_packages(checks: Checks) -> None:
    assert not set(HIDDEN) & set(checks["modules"])
    assert "torch" in checks["modules"]
