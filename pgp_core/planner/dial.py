"""One number from 0 to 1: how much to cut, for people without fine-tuned weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..errors import PlanError
from ..number import number
from ..redundancy.report import Report
from ..unet.plan import PrunePlan
from .importance import STAGES, removable
from .making import by_stack, candidates, check_stages, made


def dial(
    report: Report,
    amount: float,
    stages: Iterable[str] = STAGES,
    base: PrunePlan | None = None,
    name: str | None = None,
) -> PrunePlan:
    """Cut a share of what can be cut, the least important blocks first.

    One order of removal serves every amount, so a larger amount removes what a smaller one does, and more.

    Args:
        report: of the model; blocks that it lacks are not kept.
        amount: 0 removes nothing, 1 leaves one block in every stack that has one; in between the share of the
            blocks between the two, rounded to the nearest number of blocks.
        stages: of ``encoder``, ``bottleneck`` and ``decoder``, those that are cut.
        base: plan to cut further; None is everything that was measured.

    Raises:
        PlanError: if the amount is not from 0 to 1, or a stage is unknown.
        ReportError: if the report is of another topology than the base plan, or not whole.
    """
    number(amount, "the amount to cut is", 0, 1, error=PlanError)
    stages = check_stages(stages)
    topology, scores = candidates(base, report)
    order = removable(scores, stages, topology, 1)
    # Not round(), which takes halves to even numbers.
    gone = set(order[: math.floor(amount * len(order) + 0.5)])
    kept = by_stack(b for b in scores if b not in gone)
    about = {"method": "dial", "amount": amount, "stages": list(stages)}
    return made(name or f"dial-{amount:g}", topology, kept, about, report, base)
