"""A plan on a MODEL that is loaded already: removed blocks are passed over, their weights stay."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher

from ...pgp_core.errors import PGPError
from ...pgp_core.unet.plan import PrunePlan
from ...pgp_core.unet.topology import KeyMap
from .model import shapes_of
from .removed import watch

_PREFIX, _SUFFIX = "diffusion_model.", ".forward"
#: Attachment of a MODEL that holds the last plan applied, for the metadata of a saved file.
ATTACHMENT = "pgp_diffsr.plan"


@dataclass(frozen=True)
class Saving:
    """What a plan saves on a MODEL.

    Attributes:
        blocks, skipped: transformer blocks in all, and those passed over.
        params, unused: parameters in all, and those of the skipped blocks.
    """

    blocks: int
    skipped: int
    params: int
    unused: int

    def __str__(self) -> str:
        return (
            f"{self.skipped} of {self.blocks} transformer blocks are passed over, with {self.unused / 1e6:.0f} M of "
            f"{self.params / 1e6:.0f} M parameters. That saves time at every step, but no memory: for that, load the "
            "file with the plan, or save the model and load it again."
        )


def skip(x: torch.Tensor, context: Any = None, transformer_options: Any = None) -> torch.Tensor:
    """What a removed transformer block does."""
    return x


def blocks_of(model: ModelPatcher) -> dict[str, tuple[int, ...]]:
    """Block numbers in each transformer stack of a MODEL, by diffusers' stack names.

    Raises:
        PGPError: if its UNet is not SDXL-shaped.
    """
    names, stacks = KeyMap(), {}
    for name, module in model.model.diffusion_model.named_modules():
        if name.endswith(".transformer_blocks") and isinstance(module, torch.nn.ModuleList):
            try:
                stack = names.to_diffusers(name.removesuffix(".transformer_blocks"))
            except PGPError:
                raise PGPError("this MODEL's network is not SDXL-shaped, so no plan of this pack fits it") from None
            stacks[stack] = tuple(int(n) for n in module._modules)
    if not stacks:
        raise PGPError("this MODEL's network has no transformer blocks of a UNet, so no plan of this pack fits it")
    return stacks


def skipped_blocks(model: ModelPatcher) -> set[tuple[str, int]]:
    """``(stack, number)`` of the blocks that plans on this MODEL pass over."""
    names, found = KeyMap(), set()
    for key, value in model.object_patches.items():
        if value is skip:
            stack, _, number = key[len(_PREFIX) : -len(_SUFFIX)].rpartition(".transformer_blocks.")
            found.add((names.to_diffusers(stack), int(number)))
    return found


def apply_plan(model: ModelPatcher, plan: PrunePlan) -> tuple[ModelPatcher, Saving]:
    """A copy of a MODEL that passes over the blocks which a plan removes; the MODEL itself is not touched.

    The weights stay, so LoRAs, merges and saving see the whole model, and the result is the pruned file's to the
    bit.

    Raises:
        PlanError: if the plan does not fit, or keeps a block that an earlier plan removes.
        PGPError: if the MODEL is no SDXL-shaped UNet.
    """
    stacks, gone = blocks_of(model), skipped_blocks(model)
    left = {s: tuple(n for n in numbers if (s, n) not in gone) for s, numbers in stacks.items()}
    plan.check_model(left)
    names, pruned = KeyMap(), model.clone()
    removed = {(s, n) for s, numbers in left.items() for n in numbers if not plan.keeps(s, n)}
    for stack, number in removed:
        key = f"{names.to_ldm(stack)}.transformer_blocks.{number}"
        # Not a shorter list of blocks: clones share modules, and LoRAs would see the shorter one.
        pruned.add_object_patch(_PREFIX + key + _SUFFIX, skip)
    pruned.set_attachments(ATTACHMENT, plan)
    watch(pruned, skipped_blocks)
    prefixes = tuple(f"{names.to_ldm(s)}.transformer_blocks.{n}." for s, n in gone | removed)
    sizes = {k: math.prod(v) for k, v in shapes_of(model.model.diffusion_model).items()}
    saving = Saving(
        blocks=sum(map(len, stacks.values())),
        skipped=len(gone | removed),
        params=sum(sizes.values()),
        unused=sum(v for k, v in sizes.items() if k.startswith(prefixes)) if prefixes else 0,
    )
    return pruned, saving
