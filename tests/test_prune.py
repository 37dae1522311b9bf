"""Applying a plan: to state dicts in both schemes, and to a live UNet."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pgp_core.errors import CheckpointError, PlanError
from pgp_core.unet.blocks import stacks_in
from pgp_core.unet.known import NANO
from pgp_core.unet.plan import PrunePlan, StackPlan, load_plan
from pgp_core.unet.prune import prune_module, prune_state_dict
from pgp_core.unet.topology import KeyMap, stacks_of

EMPTYING = PrunePlan("emptying", "pgp-nano", {"mid_block.attentions.0": StackPlan(4, ())})
NOT_THE_FIRST = PrunePlan("not the first", "pgp-nano", {"down_blocks.2.attentions.1": StackPlan(4, (2, 3))})
PLANS = [load_plan("pgp-nano-coarse"), load_plan("pgp-nano"), EMPTYING, NOT_THE_FIRST, PrunePlan.full(NANO)]
MISFIT = PrunePlan(
    "misfit",
    "pgp-nano",
    {"down_blocks.1.attentions.0": StackPlan(2, (0,)), "up_blocks.3.attentions.0": StackPlan(4, (0,))},
)

by_name = pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.name)


def removed_prefixes(plan: PrunePlan) -> list[str]:
    """Key prefixes, in diffusers' scheme, of what a plan takes away."""
    return [
        f"{stack}.transformer_blocks.{n}."
        for stack, entry in plan.stacks.items()
        for n in range(entry.depth)
        if n not in entry.keep
    ]


class Identity(torch.nn.Module):
    """A transformer block that does nothing."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states


@by_name
@pytest.mark.parametrize("ldm", [False, True], ids=["diffusers", "ldm"])
def test_a_state_dict_loses_the_removed_blocks_and_nothing_else(
    plan: PrunePlan, ldm: bool, make_unet: Callable[..., torch.nn.Module]
) -> None:
    weights = make_unet().state_dict()
    expected = {k: v for k, v in weights.items() if not k.startswith(tuple(removed_prefixes(plan)))}
    if ldm:
        names = KeyMap.of(weights)
        weights, expected = ({names.to_ldm(k): v for k, v in d.items()} for d in (weights, expected))
    before = list(weights)
    pruned = prune_state_dict(weights, plan)
    assert list(pruned) == list(expected), "the same keys, numbers and order"
    assert all(pruned[k] is weights[k] for k in pruned), "nothing is copied"
    assert list(weights) == before, "the input stays"
    assert stacks_of(pruned) == {
        k: tuple(plan.stacks[k].keep) if k in plan.stacks else n for k, n in stacks_of(before).items()
    }


def test_values_are_not_looked_at(make_unet: Callable[..., torch.nn.Module]) -> None:
    lazy = {k: object() for k in make_unet().state_dict()}
    assert len(prune_state_dict(lazy, load_plan("pgp-nano"))) < len(lazy)


@by_name
def test_a_live_unet_has_the_keys_that_its_pruned_state_dict_has(
    plan: PrunePlan, make_unet: Callable[..., torch.nn.Module]
) -> None:
    unet = make_unet()
    expected = prune_state_dict(unet.state_dict(), plan)
    assert prune_module(unet, plan) is unet
    pruned = unet.state_dict()
    assert list(pruned) == list(expected)
    assert all(torch.equal(pruned[k], expected[k]) for k in pruned)


@by_name
def test_a_pruned_unet_computes_what_it_would_with_removed_blocks_skipped(
    plan: PrunePlan, make_unet: Callable[..., torch.nn.Module], call_unet: Callable[..., torch.Tensor]
) -> None:
    unet, skipping = make_unet(), make_unet()
    for prefix in removed_prefixes(plan):
        stack, number = re.fullmatch(r"(.+)\.(\d+)\.", prefix).groups()  # type: ignore[union-attr]
        skipping.get_submodule(stack)[int(number)] = Identity()  # type: ignore[index, operator]
    prune_module(unet, plan)
    assert torch.equal(call_unet(unet), call_unet(skipping))
    if plan.removed:
        assert not torch.allclose(call_unet(unet), call_unet(make_unet())), "the removed blocks did something"


def in_ldm_s_scheme(unet: torch.nn.Module) -> torch.nn.Module:
    """A tree of the same blocks, with the names that they have in ComfyUI."""
    root = torch.nn.Module()
    for name, module in unet.named_modules():
        if name.endswith((".transformer_blocks", ".downsamplers.0")):
            here, (*parents, last) = root, KeyMap().to_ldm(name).split(".")
            for part in parents:
                if part not in here._modules:
                    here.add_module(part, torch.nn.Module())
                here = here.get_submodule(part)
            here.add_module(last, torch.nn.Module() if name.endswith(".0") else module)
            if name.endswith(".0"):
                here.get_submodule(last).add_module("op", torch.nn.Identity())
    return root


@by_name
def test_a_live_unet_is_pruned_by_the_names_of_either_scheme(
    plan: PrunePlan, make_unet: Callable[..., torch.nn.Module]
) -> None:
    unet = make_unet()
    expected = {KeyMap().to_ldm(k) for k in prune_state_dict(unet.state_dict(), plan) if "transformer_blocks" in k}
    assert set(prune_module(in_ldm_s_scheme(unet), plan).state_dict()) == expected


def test_blocks_that_are_left_are_found_by_their_own_numbers(make_unet: Callable[..., torch.nn.Module]) -> None:
    plan, unet = load_plan("pgp-nano"), make_unet()
    whole = {stack: list(blocks) for stack, blocks in stacks_in(unet).items()}
    assert list(whole) == list(stacks_of(unet.state_dict()))
    left = stacks_in(prune_module(unet, plan))
    assert plan.removed
    for stack, entry in plan.stacks.items():
        assert [left[stack][n] for n in entry.keep] == [whole[stack][n] for n in entry.keep]
        assert list(left[stack]) == [whole[stack][n] for n in entry.keep]
        if entry.keep:
            assert left[stack][-1] is whole[stack][entry.keep[-1]]
        for gone in set(range(entry.depth)) - set(entry.keep):
            with pytest.raises(IndexError, match=f"block {gone} was removed"):
                left[stack][gone]


def test_stacks_are_found_beside_a_lora(make_unet: Callable[..., torch.nn.Module]) -> None:
    unet = make_unet()
    found = stacks_in(unet)
    unet.get_submodule("conv_in").add_module("lora_A", torch.nn.Identity())
    assert stacks_in(unet) == found


def test_a_network_without_stacks_has_none_and_a_foreign_one_is_named() -> None:
    assert stacks_in(torch.nn.Sequential(torch.nn.Linear(2, 2))) == {}
    foreign = torch.nn.Module()
    foreign.add_module("down_blocks", torch.nn.Module())
    foreign.add_module("other", torch.nn.Module())
    foreign.get_submodule("other").add_module("transformer_blocks", torch.nn.ModuleList())
    foreign.get_submodule("down_blocks").add_module("0", torch.nn.Identity())
    with pytest.raises(CheckpointError, match=r"other\.transformer_blocks"):
        stacks_in(foreign)


def test_weights_of_a_pruned_unet_load_into_one_pruned_when_built(
    make_unet: Callable[..., torch.nn.Module], call_unet: Callable[..., torch.Tensor]
) -> None:
    plan = load_plan("pgp-nano")
    pruned, built = prune_module(make_unet(seed=1), plan), make_unet(plan, seed=2)
    built.load_state_dict(pruned.state_dict())
    assert torch.equal(call_unet(built), call_unet(pruned))


def test_pruning_again_changes_nothing_and_a_finer_plan_goes_on(make_unet: Callable[..., torch.nn.Module]) -> None:
    coarse, fine = load_plan("pgp-nano-coarse"), load_plan("pgp-nano")
    unet = prune_module(make_unet(), coarse)
    after_coarse = list(unet.state_dict())
    assert list(prune_module(unet, coarse).state_dict()) == after_coarse
    stepwise = list(prune_module(unet, fine).state_dict())
    assert stepwise == list(prune_module(make_unet(), fine).state_dict())
    weights = make_unet().state_dict()
    assert list(prune_state_dict(prune_state_dict(weights, coarse), fine)) == stepwise


@pytest.mark.parametrize("plan", [MISFIT, load_plan("pgp-sdxl")], ids=lambda p: p.name)
def test_a_plan_that_does_not_fit_leaves_the_unet_as_it_was(
    plan: PrunePlan, make_unet: Callable[..., torch.nn.Module]
) -> None:
    unet = make_unet()
    before = copy.deepcopy(unet.state_dict())
    with pytest.raises(PlanError, match=plan.name):
        prune_module(unet, plan)
    with pytest.raises(PlanError, match=plan.name):
        prune_state_dict(unet.state_dict(), plan)
    after = unet.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[k], before[k]) for k in before)


def test_a_coarser_plan_does_not_fit_after_a_finer_one(make_unet: Callable[..., torch.nn.Module]) -> None:
    finer = load_plan("pgp-nano")
    unet = prune_module(make_unet(), finer)
    before = list(unet.state_dict())
    gone = next(i for i in range(4) if i not in finer.stacks["up_blocks.0.attentions.0"].keep)
    with pytest.raises(PlanError, match=rf"keeps block {gone} of up_blocks\.0\.attentions\.0"):
        prune_module(unet, load_plan("pgp-nano-coarse"))
    assert list(unet.state_dict()) == before
