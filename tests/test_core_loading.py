"""What is said of files that core's loader would sample otherwise; what it does with blocks is tried in ComfyUI."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgp_core.unet.core_loading import loads_in_core
from pgp_core.unet.inspect import UNetInfo
from pgp_core.unet.known import NANO, NANO_SHAPE, SDXL, SDXL_SHAPE
from pgp_core.unet.plan import PrunePlan
from pgp_core.unet.topology import KeyMap

WHOLE = UNetInfo("x", SDXL_SHAPE, PrunePlan.full(SDXL), "epsilon", False, 0.0, "", "ldm", KeyMap(), ())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"prediction": "v_prediction"}, ""),
        ({"prediction": "v_prediction", "zero_snr": True}, ""),
        ({"zero_snr": True}, "zero terminal SNR"),
        ({"prediction": "sample"}, "not sample"),
        ({"latent_std": 0.5}, "epsilon"),
        ({"shape": replace(SDXL_SHAPE, context_dim=1024)}, "widths"),
        ({"shape": replace(SDXL_SHAPE, channels=(64, 64, 64))}, "widths"),
        ({"shape": NANO_SHAPE, "plan": PrunePlan.full(NANO)}, "pgp-nano"),
    ],
)
def test_what_core_does_not_know_of_a_whole_unet(change: dict[str, Any], why: str) -> None:
    said = loads_in_core(replace(WHOLE, **change))
    assert said.loads == (not why)
    assert why in said.why
    assert ("does not read" in str(said)) == bool(why)
