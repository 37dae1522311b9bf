"""Fine pruning: redundant blocks go, by thresholds, by a count per stack, or until a budget is met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import PlanError, ReportError
from ..number import number
from ..redundancy.report import Report
from ..unet.plan import PrunePlan
from ..unet.topology import Topology
from .importance import BlockId, removable, removal_order
from .making import by_stack, candidates, check_least, check_stages, made

#: The paper's thresholds.
TAU_COS, TAU_KL = 0.2, 1.0
DECODER = ("decoder",)


def by_thresholds(
    base: PrunePlan,
    report: Report,
    tau_cos: float = TAU_COS,
    tau_kl: float = TAU_KL,
    literal: bool = False,
    stages: Iterable[str] = DECODER,
    min_blocks: int = 1,
    name: str | None = None,
) -> PrunePlan:
    """Remove the blocks that barely change their input.

    Args:
        base: plan to cut further: a coarse one, or :meth:`PrunePlan.full`.
        report: of the model; blocks that it lacks are not kept.
        tau_cos: blocks with a mean Φ_cos of at most this go, if Ψ_KL says so too; at least 0.
        tau_kl: the same for the mean Ψ_KL, in nats.
        literal: remove where both are *at least* their threshold, as the paper's text has it, though both measure
            how *dis*similar input and output are.
        stages: of ``encoder``, ``bottleneck`` and ``decoder``, those that are cut.
        min_blocks: blocks that every stack must keep.

    Raises:
        PlanError: if a threshold is no number from 0, or leaves a stack fewer than ``min_blocks`` blocks.
        ReportError: if the report is of another topology or not whole.
    """
    for what, tau in (("tau_cos", tau_cos), ("tau_kl", tau_kl)):
        number(tau, f"{what} is", 0, error=PlanError)
    stages, least = check_stages(stages), check_least(min_blocks)
    topology, scores = candidates(base, report)

    def redundant(block: BlockId) -> bool:
        if topology.stage(block[0]) not in stages:
            return False
        phi, psi = scores[block]
        return (phi >= tau_cos and psi >= tau_kl) if literal else (phi <= tau_cos and psi <= tau_kl)

    before, kept = by_stack(scores), by_stack(b for b in scores if not redundant(b))
    for stack, numbers in before.items():
        left = len(kept.get(stack, ()))
        if left < min(least, len(numbers)):
            other = "raise" if literal else "lower"
            raise PlanError(
                f"thresholds {tau_cos} and {tau_kl} leave {left} of the {len(numbers)} blocks of {stack}, "
                f"at least {min(least, len(numbers))} must stay: {other} them, or give a count or a budget"
            )
    about = {
        "method": "fine",
        "by": "thresholds",
        "thresholds": {"tau_cos": tau_cos, "tau_kl": tau_kl},
        "literal": literal,
        "stages": list(stages),
    }
    return made(name or "fine", topology, kept, about, report, base)


def smallest_scale(topology: Topology, stages: Iterable[str] = DECODER) -> list[str]:
    """The stacks of each stage at its smallest feature maps; in the decoder ``up_blocks.0.attentions.*``."""
    out = []
    for stage in stages:
        own = [s for s in topology.depths if topology.stage(s) == stage]
        levels = [int(s.split(".")[1]) if stage != "bottleneck" else 0 for s in own]
        # The encoder ends at its smallest scale, the decoder begins there.
        smallest = max(levels, default=0) if stage == "encoder" else min(levels, default=0)
        out += [s for s, level in zip(own, levels, strict=True) if level == smallest]
    return out


def by_count(
    base: PrunePlan,
    report: Report,
    count: int | Mapping[str, int],
    stages: Iterable[str] = DECODER,
    min_blocks: int = 1,
    name: str | None = None,
) -> PrunePlan:
    """Keep a number of blocks in some stacks: those that change their input most.

    Args:
        count: of each stack named; or one number, for the stacks of :func:`smallest_scale`. The paper's is 4.
        stages: for one number, the stages that are cut; stacks that are named need none.
        base, report, min_blocks: see :func:`by_thresholds`.

    Raises:
        PlanError: if a stack is unknown, or a count is below ``min_blocks`` or above what the stack has.
        ReportError: if the report is of another topology or not whole.
    """
    stages, least = check_stages(stages), check_least(min_blocks)
    topology, scores = candidates(base, report)
    wanted = dict(count) if isinstance(count, Mapping) else dict.fromkeys(smallest_scale(topology, stages), count)
    order = by_stack(removal_order(scores))
    for stack, n in wanted.items():
        if stack not in topology.depths:
            raise PlanError(f"{stack!r} is no stack of {topology.name}; it has {', '.join(topology.depths)}")
        have = order.get(stack, [])
        if isinstance(n, bool) or not isinstance(n, int) or not min(least, len(have)) <= n <= len(have):
            raise PlanError(f"{stack} can keep {min(least, len(have))} to {len(have)} blocks, not {n!r}")
        order[stack] = have[len(have) - n :]
    about = {"method": "fine", "by": "count", "count": wanted}
    return made(name or "fine-count", topology, order, about, report, base)


def totals(plan: PrunePlan, report: Report) -> dict[str, int]:
    """``params`` and ``macs`` of the measured UNet with the blocks that a plan keeps; without what it lacks.

    Multiply-accumulates are for one picture and one conditioning at the latent that was measured.

    Raises:
        ReportError: if the blocks cost more than the whole.
    """
    removed = [b for s, blocks in report.blocks.items() for n, b in blocks.items() if not plan.keeps(s, n)]
    out = {}
    for what in ("params", "macs"):
        if what in report.totals:
            blocks = sum(getattr(b, what) for own in report.blocks.values() for b in own.values())
            if report.totals[what] < blocks:
                raise ReportError(f"the report's UNet has fewer {what} than its blocks together: measure again")
            out[what] = report.totals[what] - sum(getattr(b, what) for b in removed)
    return out


def by_budget(
    base: PrunePlan,
    report: Report,
    max_params: int | None = None,
    max_macs: int | None = None,
    stages: Iterable[str] = DECODER,
    min_blocks: int = 1,
    name: str | None = None,
) -> PrunePlan:
    """Remove the least important blocks, one by one, until the whole UNet costs no more than allowed.

    Args:
        max_params: parameters of the resulting UNet.
        max_macs: its multiply-accumulates, of the report's kind: one picture and one conditioning at the latent
            that was measured.
        base, report, stages, min_blocks: see :func:`by_thresholds`.

    Raises:
        PlanError: if no budget is given, or it cannot be met; the message names the smallest that can.
        ReportError: if the report is of another topology or not whole.
    """
    budget = {k: v for k, v in (("params", max_params), ("macs", max_macs)) if v is not None}
    if not budget:
        raise PlanError("a budget needs a number of parameters or of multiply-accumulates")
    for what, limit in budget.items():
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
            raise PlanError(f"max_{what} is a whole number from 0, not {limit!r}")
    stages, least = check_stages(stages), check_least(min_blocks)
    topology, scores = candidates(base, report)
    lacking = [what for what in budget if what not in report.totals]
    if lacking:
        raise ReportError(f'the report does not say the whole UNet\'s "{lacking[0]}": measure again')

    def over(cost: Mapping[str, int]) -> list[str]:
        return [what for what, limit in budget.items() if cost[what] > limit]

    about = {"method": "fine", "by": "budget", "budget": budget, "stages": list(stages)}
    start = made(name or "fine-budget", topology, by_stack(scores), about, report, base)
    cost, gone = totals(start, report), set[BlockId]()
    for stack, index in removable(scores, stages, topology, least):
        if not over(cost):
            break
        block = report.blocks[stack][index]
        cost = {what: now - getattr(block, what) for what, now in cost.items()}
        gone.add((stack, index))
    if over(cost):
        what = over(cost)[0]
        words = {"params": "parameters", "macs": "multiply-accumulates"}[what]
        raise PlanError(
            f"a budget of {budget[what]} {words} cannot be met: the smallest possible is {cost[what]}, with "
            f"{least} in each stack of {', '.join(stages)}; allow that, or cut more stages"
        )
    return made(start.name, topology, by_stack(b for b in scores if b not in gone), about, report, base)
