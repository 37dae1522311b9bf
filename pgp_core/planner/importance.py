"""How much each block changes its input, which every plan from a report goes by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import ReportError
from ..redundancy.report import ALL, Report
from ..unet.known import TOPOLOGIES
from ..unet.topology import Topology, stack_order

#: A stack's diffusers name and a block's original number.
BlockId = tuple[str, int]
STAGES = ("encoder", "bottleneck", "decoder")


class Score(NamedTuple):
    """A block's importance; compared by Φ_cos first, ties by Ψ_KL. Higher changes more."""

    phi: float
    psi: float


def topology_of(report: Report, wanted: str | None = None) -> Topology:
    """The topology that a report was measured on.

    Args:
        wanted: name of the topology that a plan is to be for.

    Raises:
        ReportError: if it is another one than wanted, or none that this release knows.
    """
    if wanted is not None and report.topology != wanted:
        raise ReportError(f"the report is of {report.topology}, the plan is for {wanted}: measure that model")
    topology = TOPOLOGIES.get(report.topology)
    if topology is None:
        raise ReportError(f"the report is of {report.topology}, which this release does not know: update")
    return topology


def importance(report: Report) -> dict[BlockId, Score]:
    """Each block's mean Φ_cos and mean Ψ_KL over all timesteps (Equations 1 and 2, from input to output).

    Returns:
        only blocks that the report has, in running order; Φ_cos in [0, 2], Ψ_KL in nats.

    Raises:
        ReportError: if the report has no blocks, blocks that its topology lacks, or a number that is missing or
            not finite.
    """
    topology = topology_of(report)
    scores = {}
    unknown = [s for s in report.blocks if s not in topology.depths]
    if unknown:
        raise ReportError(f"the report has stack {unknown[0]}, which {topology.name} does not: it is of another model")
    for stack in sorted(report.blocks, key=stack_order):
        depth = topology.depths[stack]
        for number, block in sorted(report.blocks[stack].items()):
            if not 0 <= number < depth:
                raise ReportError(
                    f"the report has block {number} of {stack}; {topology.name} has {depth} blocks there: "
                    "it is of another model"
                )
            overall = block.series.get(ALL)
            if overall is None:
                raise ReportError(f'the report has no "{ALL}" statistics of block {number} of {stack}: measure again')
            score = Score(overall["phi_cos"].mean, overall["psi_kl"].mean)
            if not all(map(math.isfinite, score)):
                raise ReportError(f"the report has NaN for block {number} of {stack}: measure again")
            scores[stack, number] = score
    if not scores:
        raise ReportError("the report has no blocks: measure again")
    return scores


def removal_order(scores: Mapping[BlockId, Score]) -> list[BlockId]:
    """Blocks from the least to the most important; of equals the later one goes first."""

    def key(block: BlockId) -> tuple[Score, tuple[int, ...], int]:
        stack, number = block
        return scores[block], tuple(-n for n in stack_order(stack)), -number

    return sorted(scores, key=key)


def removable(scores: Mapping[BlockId, Score], stages: Iterable[str], topology: Topology, least: int) -> list[BlockId]:
    """What may go, in :func:`removal_order`: not the ``least`` most important blocks of a stack."""
    order, left, out = removal_order(scores), dict[str, int](), []
    for stack, _ in scores:
        left[stack] = left.get(stack, 0) + 1
    chosen = set(stages)
    for stack, number in order:
        if topology.stage(stack) in chosen and left[stack] > least:
            left[stack] -= 1
            out.append((stack, number))
    return out
