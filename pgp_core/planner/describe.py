"""What a plan keeps and what the model then costs, as text."""

from __future__ import annotations

from ..unet.costs import unet_cost
from ..unet.known import SHAPES
from ..unet.plan import PrunePlan

#: Height and width of the latent that costs are counted at.
LATENT = (128, 128)


def headline(plan: PrunePlan) -> str:
    """A plan in one line."""
    return f"{plan.name}, for {plan.topology}; removes {plan.removed} transformer blocks"


def kept(plan: PrunePlan) -> list[tuple[str, str]]:
    """Each stack, and how many and which of its blocks stay."""
    return [
        (stack, f"{len(s.keep)} of {s.depth}: {', '.join(map(str, s.keep)) or 'none'}")
        for stack, s in plan.stacks.items()
    ]


def describe(plan: PrunePlan) -> str:
    """A plan for people: its blocks, and parameters and multiply-accumulates before and after.

    Costs are those of the whole family at :data:`LATENT`, one picture and one conditioning, attention included.
    """
    lines = [headline(plan), *(f"{stack}: {blocks}" for stack, blocks in kept(plan))]
    shape = SHAPES.get(plan.topology)
    if shape is not None:
        depths = shape.topology.depths
        before = unet_cost(shape, {s: range(d) for s, d in depths.items()}, LATENT)
        after = unet_cost(shape, {s: [n for n in range(d) if plan.keeps(s, n)] for s, d in depths.items()}, LATENT)
        for what, size, unit, old, new in (
            ("parameters", 1e6, "M", before[0], after[0]),
            (f"multiply-accumulates at {LATENT[0]} x {LATENT[1]}", 1e9, "G", before[1], after[1]),
        ):
            lines.append(f"{what}: {new / size:.1f} {unit} of {old / size:.1f} {unit} ({new / old:.0%})")
    return "\n".join(lines)
