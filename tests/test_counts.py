"""Parameter counts of the paper and the design, on the meta device."""

from __future__ import annotations

import pytest
import torch

from pgp_core.guidance.lq_adapter import LQAdapter
from pgp_core.guidance.module import Guidance, GuidanceSpec
from pgp_core.guidance.peam import PEAM
from pgp_core.unet.known import SDXL_SHAPE
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import load_plan
from pgp_core.unet.prune import prune_module


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("plan", "parameters"),
    [(None, 2_567_463_684), ("pgp-sdxl-coarse", 1_609_045_764), ("pgp-sdxl", 983_440_644)],
)
def test_sdxl_s_unet(plan: str | None, parameters: int) -> None:
    with torch.device("meta"):
        built = build_unet(SDXL_SHAPE, load_plan(plan) if plan else None)
        pruned = build_unet(SDXL_SHAPE)
    if plan:
        prune_module(pruned, load_plan(plan))
    assert count(built) == count(pruned) == parameters


def test_one_peam_at_320_channels() -> None:
    # 3x3 convolutions with bias: 640 -> 64, ten 64 -> 64, 64 -> 640.
    by_hand = (640 * 64 * 9 + 64) + 10 * (64 * 64 * 9 + 64) + (64 * 640 * 9 + 640)
    assert count(PEAM(320, device="meta")) == by_hand == 1_107_264


def test_one_level_of_the_lq_adapter() -> None:
    assert count(LQAdapter(device="meta")) == 4_261_440


def test_the_paper_s_model_is_the_pruned_unet_with_one_peam() -> None:
    with torch.device("meta"):
        unet, guidance = build_unet(SDXL_SHAPE, load_plan("pgp-sdxl")), Guidance(GuidanceSpec())
    assert count(unet) + count(guidance.peam) == 983_440_644 + 1_107_264 == 984_547_908
    assert count(guidance) == 1_107_264 + 4_261_440
