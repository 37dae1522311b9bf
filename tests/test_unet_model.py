"""Our UNet against diffusers': the same names, the same shapes, the same numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from draws import draw
from rounding import NETWORK, assert_same

from pgp_core.errors import PlanError
from pgp_core.unet.known import SHAPES
from pgp_core.unet.model import UNet
from pgp_core.unet.on_diffusers import build_unet
from pgp_core.unet.plan import PrunePlan, StackPlan, load_plan, presets
from pgp_core.unet.prune import prune_module
from pgp_core.unet.shape import UNetShape

#: Every known UNet whole, and under each bundled plan.
UNETS = [*((name, None) for name in SHAPES), *((load_plan(plan).topology, plan) for plan in presets())]


def narrow(name: str) -> UNetShape:
    """A known UNet with levels of other widths and more than one head."""
    return replace(SHAPES[name], channels=(32, 64, 96), head_dim=32, context_dim=24, pooled_dim=40)


def pair(shape: UNetShape, plan: PrunePlan | None, dtype: torch.dtype) -> tuple[Any, UNet]:
    """diffusers' and ours with the same drawn weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        theirs = build_unet(shape, plan)
    with torch.device("meta"):
        ours = UNet(shape, plan)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    # Not diffusers' own ``to``, which warns.
    return torch.nn.Module.to(theirs, dtype=dtype).eval(), ours.to(dtype).eval()


def inputs(shape: UNetShape, size: tuple[int, int], dtype: torch.dtype, batch: int = 2) -> dict[str, Any]:
    return {
        "sample": draw(1, batch, shape.latent_channels, *size).to(dtype),
        "timestep": torch.tensor([999.0, 1.5])[:batch],
        "encoder_hidden_states": draw(2, batch, 7, shape.context_dim).to(dtype),
        "added_cond_kwargs": {
            "text_embeds": draw(3, batch, shape.pooled_dim).to(dtype),
            "time_ids": torch.tensor([[1023.0, 513.0, 3.0, 0.0, 777.0, 512.0]]).repeat(batch, 1),
        },
    }


@pytest.mark.parametrize(("name", "plan"), UNETS)
def test_names_and_shapes_are_diffusers(name: str, plan: str | None) -> None:
    loaded = load_plan(plan) if plan else None
    with torch.device("meta"):
        theirs, ours = build_unet(SHAPES[name], loaded), UNet(SHAPES[name], loaded)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}


@torch.inference_mode()
@pytest.mark.parametrize(("name", "plan"), UNETS)
def test_numbers_are_diffusers_in_float64(name: str, plan: str | None) -> None:
    loaded, shape = load_plan(plan) if plan else None, narrow(name)
    theirs, ours = pair(shape, loaded, torch.float64)
    for size in ((16, 8), (13, 7), (1, 1)):
        given = inputs(shape, size, torch.float64)
        expected, actual = theirs(**given, return_dict=False)[0], ours(**given)[0]
        assert actual.dtype == torch.float64
        assert_same(actual, expected, NETWORK)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_diffusers_in_other_precisions(dtype: torch.dtype) -> None:
    """Timesteps and sizes are embedded in float32 first: in half precision 999 and 1000 would be the same."""
    shape = narrow("sdxl")
    theirs, ours = pair(shape, load_plan("pgp-sdxl"), dtype)
    given = inputs(shape, (12, 9), dtype)
    expected, actual = theirs(**given, return_dict=False)[0], ours(**given)[0]
    assert actual.dtype == dtype
    assert_same(actual, expected, NETWORK)


@torch.inference_mode()
def test_a_timestep_for_all(shape: Any) -> None:
    _, ours = pair(shape, None, torch.float64)
    given = inputs(shape, (4, 4), torch.float64)
    given["timestep"] = torch.tensor([5.0, 5.0])
    expected = ours(**given)[0]
    for timestep in (5, 5.0, torch.tensor(5), torch.tensor([5])):
        assert torch.equal(ours(**{**given, "timestep": timestep})[0], expected)


def test_a_plan_is_what_pruning_leaves(shape: Any) -> None:
    plan = load_plan("pgp-nano")
    with torch.device("meta"):
        built, pruned = UNet(shape, plan), prune_module(UNet(shape), plan)
    assert list(built.state_dict()) == list(pruned.state_dict())
    kept = plan.stacks["up_blocks.0.attentions.0"].keep
    stack = built.get_submodule("up_blocks.0.attentions.0.transformer_blocks")
    assert [name for name, _ in stack.named_children()] == [str(n) for n in kept], "original numbers, with gaps"


def test_a_plan_that_does_not_fit_is_refused(shape: Any) -> None:
    foreign = PrunePlan("mine", "pgp-nano", {"up_blocks.2.attentions.0": StackPlan(1, (0,))})
    with pytest.raises(PlanError, match=r"up_blocks\.2\.attentions\.0"):
        UNet(shape, foreign)
