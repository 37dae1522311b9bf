"""Apply a prune plan: to a state dict, or to a live UNet. Original block numbers stay."""

from __future__ import annotations

from typing import TypeVar

import torch

from .blocks import GappedList, numbers_in, stacks_in
from .plan import PrunePlan
from .topology import KeyMap, scheme_of, split_block, stacks_of

V = TypeVar("V")


def prune_state_dict(state_dict: dict[str, V], plan: PrunePlan) -> dict[str, V]:
    """A state dict without the blocks that the plan removes.

    Args:
        state_dict: a UNet's keys without prefix, in either scheme; values are not looked at, so lazy
            tensors and slices work and nothing is copied.
        plan: checked against the stacks that are there; blocks already gone are fine.

    Returns:
        a new dict with the same values; keys keep their original block numbers.

    Raises:
        PlanError: if the plan does not fit.
    """
    plan.check_model(stacks_of(state_dict))
    names = KeyMap.of(state_dict) if scheme_of(state_dict) == "ldm" else None

    def stays(key: str) -> bool:
        block = split_block(key)
        if block is None:
            return True
        stack = names.to_diffusers(block[0]) if names else block[0]
        return plan.keeps(stack, block[1])

    return {k: v for k, v in state_dict.items() if stays(k)}


def prune_module(unet: torch.nn.Module, plan: PrunePlan) -> torch.nn.Module:
    """Delete the removed blocks from a UNet of either scheme, in place.

    The ``ModuleList`` keeps the original numbers as its keys, with gaps: it iterates and names its state
    dict as before, and is indexed by the original numbers, see :class:`pgp_core.unet.blocks.GappedList`.

    Raises:
        PlanError: if the plan does not fit; the UNet is then unchanged.
    """
    stacks = stacks_in(unet)
    plan.check_model({stack: numbers_in(blocks) for stack, blocks in stacks.items()})
    for stack, entry in plan.stacks.items():
        blocks = stacks[stack]
        removed = [n for n in numbers_in(blocks) if n not in entry.keep]
        if removed:
            # The same list, which others may hold.
            blocks.__class__ = GappedList
        for number in removed:
            del blocks._modules[str(number)]
    return unet
