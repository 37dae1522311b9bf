"""One Step with everything that people connect to it: the right picture, or one sentence; see ``checks/wiring.py``."""

from __future__ import annotations

import pytest
import rounding

from pgp_core.restorers.nano import model as nano

from .in_process import Checks

SAMPLED_OTHERWISE = (
    "lcm", "img_to_img", "img_to_img_flow", "EDM v_prediction", "EDM edm", "EDM edm_playground_v2.5", "EDM eps",
    "EDM cosmos_rflow", "continuous V", "cascade", "flow",
)  # fmt: skip
#: Case to words of what it is answered with.
WRONG = {
    "Random Noise": ["noise was added", "Disable Noise"],
    "add_noise": ["noise was added", "add_noise off"],
    "four steps": ["its own sigmas, and got 4 steps", "output sigmas"],
    "denoise 0.5": ["its own sigmas", "output sigmas"],
    "sigmas cut off": ["its own sigmas, and got 0 steps"],
    "sigmas turned round": ["its own sigmas"],
    "sigmas that are NaN": ["its own sigmas", "nan"],
    "another family": ["another kind of model", "connect the sampled MODEL"],
    "made from another family": ["another kind of model", "connect the sampled MODEL"],
    "no S1": ["nano takes one step with its S1 LoRA only", "pgp-nano-s1.safetensors"],
    "S1 at another timestep": ["timestep 999, not 1"],
    "empty latent": ["the latent is empty", "VAE Encode"],
    "empty latent of SDXL": ["the latent is empty", "VAE Encode"],
    "another VAE's latent": ["4 x 17 x 13", "48 channels", "own VAE"],
    "a latent with NaN": ["not finite already before the model"],
    "a mask": ["noise mask", "remove"],
    "CFG NaN": ["CFG must be a finite number, not nan"],
    "timestep 1000": ["0 to 999, not 1000"],
    "pixel NaN": ["pixel strength must be 0 to 10, not nan"],
    **{f"{kind} before it": ["set to sample otherwise", "ModelSampling"] for kind in SAMPLED_OTHERWISE},
    **{
        f"{kind} behind it": ["set to sample otherwise", "ModelSampling"]
        for kind in SAMPLED_OTHERWISE
        if "playground" not in kind
    },
}


def test_what_gives_the_right_picture_is_let_through(checks: Checks) -> None:
    found = checks["right_wires"]
    assert len(found["differences"]) > 20
    for name, difference in found["differences"].items():
        assert difference * nano.SCALE <= rounding.LATENT, name
    assert found["zero latent"]
    assert found["told"] == [
        "PGP-DiffSR One Step: the MODEL has no LoRA; unless S1 is part of its file, load the S1 LoRA onto it"
    ]
    assert found["left as it was"]


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_wire_is_a_sentence(case: str, checks: Checks) -> None:
    answer = checks["wrong_wires"]["answers"][case]
    assert answer is not None, "it gave a picture"
    assert "\n" not in answer and len(answer) < 320
    for word in WRONG[case]:
        assert word in answer


def test_every_wrong_wire_that_is_tried_is_looked_at_and_leaves_nothing_behind(checks: Checks) -> None:
    found = checks["wrong_wires"]
    assert found["answers"].keys() == WRONG.keys()
    assert found["afterwards"] * nano.SCALE <= rounding.LATENT


def test_an_overflow_in_one_step_is_run_again_in_float32_and_a_broken_model_is_said(checks: Checks) -> None:
    found = checks["one_step_overflow"]
    assert found["dtypes"] == ["torch.float16", "torch.float32"]
    assert found["told"] == ["PGP-DiffSR One Step: the model overflowed in torch.float16; it is run again in float32"]
    # The weights are in half precision: 11 bits of each.
    assert 0 < found["difference"] * nano.SCALE < 1
    assert found["afterwards"] == "torch.float16"
    assert "not finite, not even in float32" in found["broken"]
