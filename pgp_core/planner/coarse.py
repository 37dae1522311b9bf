"""Coarse pruning: one transformer block in each stack of encoder and bottleneck."""

from __future__ import annotations

from typing import Literal

from ..errors import PlanError
from ..redundancy.report import Report
from ..unet.plan import PrunePlan
from ..unet.topology import Topology
from .importance import importance, removal_order, topology_of
from .making import by_stack, made

COARSE_KEEPS = ("report", "first", "last")


def coarse(
    report: Report | None,
    topology: Topology,
    keep: Literal["report", "first", "last"] = "report",
    name: str | None = None,
) -> PrunePlan:
    """One block stays in each stack of encoder and bottleneck, the decoder stays whole.

    The paper does not say which block stays.

    Args:
        report: of the model that is to be pruned; blocks that it lacks (a model pruned already) are not kept.
            None is a whole model.
        topology: of the model.
        keep: the block that stays: the one that changes its input most by the report, the first or the last.
        name: of the plan.

    Raises:
        PlanError: if ``keep`` is unknown or asks for a report that is not there, or the name is not plain.
        ReportError: if the report is of another topology or not whole.
    """
    if keep not in COARSE_KEEPS:
        raise PlanError(f"coarse pruning keeps {', '.join(COARSE_KEEPS)}, not {keep!r}")
    if report is None:
        if keep == "report":
            raise PlanError("which block stays goes by a report, and there is none: give one, or keep first or last")
        order = [(s, n) for s, d in topology.depths.items() for n in range(d)]
    else:
        topology_of(report, topology.name)
        scores = importance(report)
        order = removal_order(scores) if keep == "report" else list(scores)
    kept = by_stack(order)
    for stack, numbers in kept.items():
        if topology.stage(stack) != "decoder":
            kept[stack] = numbers[:1] if keep == "first" else numbers[-1:]
    return made(name or "coarse", topology, kept, {"method": "coarse", "keep": keep}, report)
