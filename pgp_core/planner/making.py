"""What the ways to a plan share: the blocks to choose from, and a plan with its provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..errors import PlanError
from ..redundancy.report import Report
from ..unet.known import TOPOLOGIES
from ..unet.plan import PrunePlan, StackPlan
from ..unet.topology import Topology
from .importance import STAGES, BlockId, Score, importance, topology_of
from .saving import check_name


def check_stages(stages: Iterable[str]) -> tuple[str, ...]:
    """Stages in running order, each once.

    Raises:
        PlanError: for none, or an unknown one.
    """
    given = [stages] if isinstance(stages, str) else list(stages)
    for stage in given:
        if stage not in STAGES:
            raise PlanError(f"{stage!r} is no stage of the UNet; there are {', '.join(STAGES)}")
    if not given:
        raise PlanError(f"no stage is chosen; there are {', '.join(STAGES)}")
    return tuple(s for s in STAGES if s in given)


def check_least(min_blocks: int) -> int:
    """The number of blocks that each stack must keep.

    Raises:
        PlanError: if it is no whole number from 0.
    """
    if isinstance(min_blocks, bool) or not isinstance(min_blocks, int) or min_blocks < 0:
        raise PlanError(f"min_blocks is a whole number from 0, not {min_blocks!r}")
    return min_blocks


def topology_named(plan: PrunePlan) -> Topology:
    """The topology of a plan.

    Raises:
        PlanError: if this release does not know it, or the plan does not fit it.
    """
    topology = TOPOLOGIES.get(plan.topology)
    if topology is None:
        raise PlanError(f"plan {plan.name} is for {plan.topology}, which this release does not know: update")
    plan.check(topology)
    return topology


def candidates(base: PrunePlan | None, report: Report) -> tuple[Topology, dict[BlockId, Score]]:
    """The topology, and the scores of the blocks that both the base plan and the measured model have.

    Raises:
        ReportError: if the report is of another topology, or not whole.
        PlanError: if the base plan fits no known topology.
    """
    topology = topology_of(report, base.topology if base else None)
    if base is not None:
        topology_named(base)
    scores = importance(report)
    return topology, {b: s for b, s in scores.items() if base is None or base.keeps(*b)}


def report_sha256(report: Report) -> str:
    """The hash by which a plan names the report that it was made from."""
    return hashlib.sha256(report.dumps().encode()).hexdigest()


def made(
    name: str,
    topology: Topology,
    keep: Mapping[str, Collection[int]],
    provenance: Mapping[str, Any],
    report: Report | None = None,
    base: PrunePlan | None = None,
) -> PrunePlan:
    """A plan of every stack of the topology; stacks not in ``keep`` keep nothing.

    Raises:
        PlanError: if the name is no plain name.
    """
    about = dict(provenance)
    about["report"] = report_sha256(report) if report else None
    if report:
        about["partial"] = report.partial
    about.setdefault("thresholds", {})
    if base is not None:
        about["base"] = {"name": base.name, "sha256": base.sha256()}
    stacks = {s: StackPlan(d, tuple(sorted(keep.get(s, ())))) for s, d in topology.depths.items()}
    return PrunePlan(check_name(name), topology.name, stacks, about)


def by_stack(blocks: Iterable[BlockId]) -> dict[str, list[int]]:
    """Block numbers of each stack that has any."""
    out: dict[str, list[int]] = {}
    for stack, number in blocks:
        out.setdefault(stack, []).append(number)
    return out
