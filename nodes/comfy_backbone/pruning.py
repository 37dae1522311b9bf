"""A plan on a MODEL that is loaded already: removed blocks are passed over, their weights stay."""

from __future__ import annotations

import math
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher

from ...pgp_core.errors import PlanError
from ...pgp_core.unet.plan import PrunePlan
from .blocks import blocks_of, module_of, pass_over, running, skipped_blocks
from .model import shapes_of
from .removed import watch
from .topology import names_of, topology_of

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


def apply_plan(model: ModelPatcher, plan: PrunePlan) -> tuple[ModelPatcher, Saving]:
    """A copy of a MODEL that passes over the blocks which a plan removes; the MODEL itself is not touched.

    The weights stay, so LoRAs, merges and saving see the whole model, and the result is the pruned file's to the
    bit.

    Raises:
        PlanError: if the plan does not fit, is for another topology, or keeps a block that an earlier plan removes.
        PGPError: if the MODEL is no SDXL-shaped UNet.
    """
    left, gone = running(model), skipped_blocks(model)
    topology = topology_of(model, blocks_of(model))
    if topology is not None and plan.topology != topology.name:
        raise PlanError(
            f"plan {plan.name} is for {plan.topology}, this MODEL is {topology.name}: choose a plan for that"
        )
    plan.check_model(left)
    names, pruned = names_of(model), model.clone()
    removed = {(s, n) for s, numbers in left.items() for n in numbers if not plan.keeps(s, n)}
    for block in removed:
        pass_over(pruned, block)
    pruned.set_attachments(ATTACHMENT, plan)
    watch(pruned)
    prefixes = tuple(f"{module_of(block, names)}." for block in gone | removed)
    sizes = {k: math.prod(v) for k, v in shapes_of(model.model.diffusion_model).items()}
    saving = Saving(
        blocks=sum(map(len, blocks_of(model).values())),
        skipped=len(gone | removed),
        params=sum(sizes.values()),
        unused=sum(v for k, v in sizes.items() if k.startswith(prefixes)) if prefixes else 0,
    )
    return pruned, saving
