"""Parameters and multiply-accumulates of a UNet under a plan."""

from __future__ import annotations

from dataclasses import dataclass

from .costs import TOKENS, unet_cost
from .plan import PrunePlan
from .shape import UNetShape


@dataclass(frozen=True)
class Counts:
    """Plain numbers, one UNet call at batch 1 with 77 tokens.

    Attributes:
        params: parameters.
        macs_conv_linear: multiply-accumulates of convolutions and linear layers, which is what the paper's
            tables count.
        macs_total: with attention's own products.
        latent: height and width of the latent.
    """

    params: int
    macs_conv_linear: int
    macs_total: int
    latent: tuple[int, int]


def count(shape: UNetShape, plan: PrunePlan | None = None, latent: tuple[int, int] = (128, 128)) -> Counts:
    """Count by formula; nothing is built.

    Raises:
        PlanError: if the plan does not fit the shape.
    """
    if plan is not None:
        plan.check_model({s: tuple(range(d)) for s, d in shape.topology.depths.items()}, shape.topology.name)
    blocks = {} if plan is None else {s: e.keep for s, e in plan.stacks.items()}
    cost = unet_cost(shape, blocks, latent, TOKENS)
    return Counts(cost.params, cost.dense, cost.macs, latent)
