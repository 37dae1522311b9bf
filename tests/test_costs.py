"""The cost formulas against diffusers' UNet, which is built on the meta device and watched while it runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pgp_core.errors import PlanError
from pgp_core.unet.costs import block_cost
from pgp_core.unet.count import Counts, count
from pgp_core.unet.known import NANO_SHAPE, SDXL_SHAPE, SHAPES
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import PrunePlan, load_plan
from pgp_core.unet.shape import UNetShape


def watched(shape: UNetShape, plan: PrunePlan | None = None, latent: tuple[int, int] = (128, 128)) -> Counts:
    """What PyTorch's own counter says of one call with 77 tokens."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        unet = build_unet(shape, plan)
        added = {"text_embeds": torch.empty(1, shape.pooled_dim), "time_ids": torch.empty(1, 6)}
        x, context = torch.empty(1, shape.latent_channels, *latent), torch.empty(1, 77, shape.context_dim)
        timestep = torch.empty(1)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        unet(x, timestep, encoder_hidden_states=context, added_cond_kwargs=added)
    flops, aten = counter.get_flop_counts()["Global"], torch.ops.aten
    dense = sum(n for op, n in flops.items() if op in (aten.convolution, aten.addmm, aten.mm))
    params = sum(p.numel() for p in unet.parameters())
    return Counts(params, dense // 2, sum(flops.values()) // 2, latent)


@pytest.mark.parametrize(
    ("plan", "params", "dense", "giga"),
    [
        (None, 2_567_463_684, 2988.66, 3380.62),
        ("pgp-sdxl-coarse", 1_609_045_764, 2101.59, None),
        ("pgp-sdxl", 983_440_644, 1550.74, 1769.06),
    ],
)
def test_sdxl_is_the_design_s_count_and_the_counter_s(
    plan: str | None, params: int, dense: float, giga: float | None
) -> None:
    loaded = load_plan(plan) if plan else None
    counted = count(SDXL_SHAPE, loaded)
    assert counted.params == params
    assert round(counted.macs_conv_linear / 1e9, 2) == dense
    assert giga is None or round(counted.macs_total / 1e9, 2) == giga
    assert counted == watched(SDXL_SHAPE, loaded)


@pytest.mark.parametrize("plan", [None, "pgp-nano", "pgp-nano-coarse"])
@pytest.mark.parametrize("latent", [(128, 128), (64, 32), (30, 23), (1, 1)])
def test_nano_at_every_size(plan: str | None, latent: tuple[int, int]) -> None:
    loaded = load_plan(plan) if plan else None
    assert count(NANO_SHAPE, loaded, latent) == watched(NANO_SHAPE, loaded, latent)


@pytest.mark.parametrize("name", sorted(SHAPES.keys() - {"sdxl", "pgp-nano"}))
def test_every_known_unet_at_an_odd_size(name: str) -> None:
    assert count(SHAPES[name], None, (30, 23)) == watched(SHAPES[name], None, (30, 23))


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
    assert count(shape, plan, (16, 16)) == watched(shape, plan, (16, 16))


def test_a_plan_of_another_topology_is_refused() -> None:
    with pytest.raises(PlanError, match="pgp-sdxl"):
        count(NANO_SHAPE, load_plan("pgp-sdxl"))


@pytest.mark.parametrize(("channels", "params"), [(640, 10_005_120), (1280, 34_755_840)])
def test_one_block_of_sdxl_has_the_design_s_parameters(channels: int, params: int) -> None:
    assert block_cost(channels, 2048, 4096).params == params


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
    cost = block_cost(64, 48, 35, 7)
    assert (cost.params, cost.macs) == (params, counter.get_total_flops() // 2)
