"""Transformer blocks of a MODEL: which there are, and which it does without, by its file or by a plan on it."""

from __future__ import annotations

from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...pgp_core.errors import PGPError
from ...pgp_core.unet.blocks import numbers_in, stacks_in
from ...pgp_core.unet.topology import KeyMap
from .topology import info_of, names_of

#: Of a stack, by diffusers' name, the block of a number.
Block = tuple[str, int]
_PREFIX, _SUFFIX = "diffusion_model.", ".forward"


def blocks_of(model: ModelPatcher) -> dict[str, tuple[int, ...]]:
    """Numbers of the blocks in each stack, those that are passed over too.

    Raises:
        PGPError: if the MODEL's UNet is not SDXL-shaped.
    """
    try:
        stacks = stacks_in(model.model.diffusion_model)
    except PGPError:
        raise PGPError("this MODEL's network is not SDXL-shaped, so no plan of this pack fits it") from None
    if not stacks:
        raise PGPError("this MODEL's network has no transformer blocks of a UNet, so no plan of this pack fits it")
    return {stack: numbers_in(blocks) for stack, blocks in stacks.items()}


def skip(x: torch.Tensor, context: Any = None, transformer_options: Any = None) -> torch.Tensor:
    """What a block does that is passed over."""
    return x


def module_of(block: Block, names: KeyMap) -> str:
    """Its name in core's UNet."""
    stack, number = block
    return f"{names.to_ldm(stack)}.transformer_blocks.{number}"


def pass_over(model: ModelPatcher, block: Block) -> None:
    """Let a MODEL do without a block. It is there still: clones share modules, and LoRAs would see a shorter list."""
    model.add_object_patch(f"{_PREFIX}{module_of(block, names_of(model))}{_SUFFIX}", skip)


def skipped_blocks(model: ModelPatcher) -> set[Block]:
    """Those that are there, and that plans on the MODEL pass over."""
    names, found = names_of(model), set()
    for key, value in model.object_patches.items():
        if value is skip:
            stack, _, number = key[len(_PREFIX) : -len(_SUFFIX)].rpartition(".transformer_blocks.")
            found.add((names.to_diffusers(stack), int(number)))
    return found


def running(model: ModelPatcher) -> dict[str, tuple[int, ...]]:
    """Numbers of the blocks in each stack that are called.

    Raises:
        PGPError: if the MODEL's UNet is not SDXL-shaped.
    """
    skipped = skipped_blocks(model)
    return {stack: tuple(n for n in ns if (stack, n) not in skipped) for stack, ns in blocks_of(model).items()}


def left_out(model: ModelPatcher) -> set[Block]:
    """Those that are never called: a file of this pack lacks them, or plans on the MODEL pass over them."""
    info = info_of(model)
    plan = {} if info is None else info.plan.stacks
    lacking = {(s, n) for s, entry in plan.items() for n in range(entry.depth) if n not in entry.keep}
    return lacking | skipped_blocks(model)


def depths_of(model: ModelPatcher) -> dict[str, int]:
    """How many blocks each stack has in the whole model."""
    info = info_of(model)
    if info is not None:
        return {stack: entry.depth for stack, entry in info.plan.stacks.items()}
    return {stack: len(numbers) for stack, numbers in blocks_of(model).items()}
