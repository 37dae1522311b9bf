"""The cost formulas against the counter, which builds the model with diffusers and watches it run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pgp_core.redundancy.costs import block_cost, unet_cost
from pgp_core.unet.count import count
from pgp_core.unet.plan import PrunePlan, load_plan
from pgp_core.unet.shape import NANO_SHAPE, SDXL_SHAPE, UNetShape


def kept(plan: PrunePlan) -> dict[str, tuple[int, ...]]:
    return {s: e.keep for s, e in plan.stacks.items()}


@pytest.mark.parametrize(
    ("plan", "params", "giga"), [(None, 2_567_463_684, 3380.62), ("pgp-sdxl", 983_440_644, 1769.06)]
)
def test_sdxl_is_the_design_s_count_and_the_counter_s(plan: str | None, params: int, giga: float) -> None:
    loaded = load_plan(plan) if plan else None
    cost = unet_cost(SDXL_SHAPE, kept(loaded) if loaded else None)
    assert cost[0] == params
    assert round(cost[1] / 1e9, 2) == giga
    counted = count(SDXL_SHAPE, loaded)
    assert cost == (counted.params, counted.macs_total)


@pytest.mark.parametrize("plan", [None, "pgp-nano", "pgp-nano-coarse"])
@pytest.mark.parametrize("latent", [(128, 128), (64, 32), (30, 23)])
def test_nano_at_every_size(plan: str | None, latent: tuple[int, int]) -> None:
    loaded = load_plan(plan) if plan else None
    counted = count(NANO_SHAPE, loaded, latent)
    cost = unet_cost(NANO_SHAPE, kept(loaded) if loaded else None, latent)
    assert cost == (counted.params, counted.macs_total)


def test_a_stack_without_blocks_and_another_width() -> None:
    shape = UNetShape(NANO_SHAPE.topology, 4, (32, 64, 96), 32, 16, 24)
    plan = PrunePlan.from_json(
        {
            "format": "pgp-diffsr/prune-plan",
            "version": 1,
            "name": "one empty",
            "topology": "pgp-nano",
            "stacks": {"mid_block.attentions.0": {"depth": 4, "keep": []}},
        }
    )
    counted = count(shape, plan, (16, 16))
    assert unet_cost(shape, kept(plan), (16, 16)) == (counted.params, counted.macs_total)


@pytest.mark.parametrize(("channels", "params"), [(640, 10_005_120), (1280, 34_755_840)])
def test_one_block_of_sdxl_has_the_design_s_parameters(channels: int, params: int) -> None:
    assert block_cost(channels, 2048, 4096)[0] == params


def test_one_block_against_a_counter() -> None:
    from diffusers.models.attention import BasicTransformerBlock
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        block: Any = BasicTransformerBlock(64, 2, 32, cross_attention_dim=48, activation_fn="geglu")
        x, context = torch.empty(1, 35, 64), torch.empty(1, 7, 48)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        block(x, encoder_hidden_states=context)
    params = sum(p.numel() for p in block.parameters())
    assert block_cost(64, 48, 35, 7) == (params, counter.get_total_flops() // 2)
