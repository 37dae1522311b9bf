"""Changing a plan by hand: numbers of blocks for stages, exact blocks for stacks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import PlanError
from ..redundancy.report import Report
from ..unet.plan import PrunePlan
from ..unet.topology import Topology
from .importance import STAGES, importance, removal_order, topology_of
from .making import by_stack, made, topology_named
from .saving import check_name

_EXAMPLE = "up_blocks.0.attentions.1: 0, 3, 9; mid_block.attentions.0: 4"


def parse_keep(text: str) -> dict[str, list[int]]:
    """Exact blocks from text such as ``up_blocks.0.attentions.1: 0, 3, 9; mid_block.attentions.0: 4``.

    Parts are separated by semicolons or line breaks; ``none`` keeps no block. Whether a model has these stacks and
    blocks is for :func:`edited` to say.

    Raises:
        PlanError: naming the part that is wrong.
    """
    out: dict[str, list[int]] = {}
    for part in re.split(r"[;\n]", text):
        part = part.strip()
        if not part:
            continue
        stack, colon, numbers = (x.strip() for x in part.partition(":"))
        if not colon or not stack:
            raise PlanError(f"{part[:80]!r} is no stack with its blocks: write, for example, {_EXAMPLE}")
        if stack in out:
            raise PlanError(f"{stack} is named twice: put all of its blocks after one name")
        out[stack] = []
        if numbers.lower() == "none":
            continue
        for number in numbers.split(","):
            if not re.fullmatch(r"[0-9]{1,4}", number.strip()):
                raise PlanError(f'{stack}: {number.strip()[:40]!r} is no block number: write 0, 3, 9 or "none"')
            if int(number) in out[stack]:
                raise PlanError(f"{stack}: block {int(number)} is named twice")
            out[stack].append(int(number))
    return out


def edited(
    plan: PrunePlan,
    keep: Mapping[str, int | Sequence[int]],
    report: Report | None = None,
    name: str | None = None,
) -> PrunePlan:
    """A plan with other blocks in some stacks.

    A number chooses blocks: with a report those that change their input most, without one blocks spread evenly from
    the first to the last, as the presets have them. Where the plan keeps that many or more, they come from those that
    it keeps; where it keeps fewer, removed ones come back: with a report beside those that it keeps, without one
    the blocks are spread anew.

    Args:
        plan: to start from; stacks that are not named stay as they are in it.
        keep: a stage (``encoder``, ``bottleneck``, ``decoder``) or a stack to a number of blocks or to exact
            blocks. A stage's number counts for each of its stacks, and is all blocks where a stack has fewer.
            Stacks go before stages.
        report: of the model, for numbers.

    Raises:
        PlanError: naming the stack or stage and the block or number that is wrong.
        ReportError: if the report is of another topology or not whole.
    """
    topology = topology_named(plan)
    wanted: dict[str, int | Sequence[int]] = {}
    for key, value in sorted(keep.items(), key=lambda item: item[0] not in STAGES):
        if key in STAGES:
            own = [s for s in topology.depths if topology.stage(s) == key]
            wanted |= {s: min(value, topology.depths[s]) if isinstance(value, int) else value for s in own}
        elif key in topology.depths:
            wanted[key] = value
        else:
            raise PlanError(
                f"{key!r} is no stack of {topology.name}: it has {', '.join(topology.depths)}, "
                f"in the stages {', '.join(STAGES)}"
            )
    ranked: dict[str, list[int]] = {}
    if report is not None:
        topology_of(report, topology.name)
        ranked = by_stack(reversed(removal_order(importance(report))))
    out = {s: [n for n in range(d) if plan.keeps(s, n)] for s, d in topology.depths.items()}
    for stack, value in wanted.items():
        if isinstance(value, int):
            out[stack] = _some(stack, value, out[stack], topology, ranked.get(stack, []) if report else None)
        else:
            out[stack] = _exact(stack, value, topology)
    about = {"method": "edited", "edits": {s: out[s] for s in wanted}}
    return made(name or _name(plan.name), topology, out, about, report, plan)


def _name(base: str) -> str:
    """``base-edited``, the ending once however often a plan is edited; a name from a file may not be a plain name."""
    try:
        return check_name(base if base.endswith("-edited") else f"{base}-edited")
    except PlanError:
        return "edited"


def _exact(stack: str, blocks: Sequence[int], topology: Topology) -> list[int]:
    depth = topology.depths[stack]
    out: list[int] = []
    for block in blocks:
        if isinstance(block, bool) or not isinstance(block, int) or not 0 <= block < depth:
            raise PlanError(f"{stack} has no block {block!r}: it has 0 to {depth - 1}")
        if block in out:
            raise PlanError(f"{stack}: block {block} is named twice")
        out.append(block)
    return sorted(out)


def _some(stack: str, count: int, kept: list[int], topology: Topology, ranked: list[int] | None) -> list[int]:
    """``count`` blocks of a stack; ``ranked``: what was measured of it, the most important first."""
    depth = topology.depths[stack]
    if isinstance(count, bool) or not 0 <= count <= depth:
        raise PlanError(f"{stack} can keep 0 to {depth} blocks, not {count!r}")
    if ranked is None:
        pool = kept if count <= len(kept) else list(range(depth))
        return _spread(pool, count)
    pool = [n for n in ranked if n in kept] + [n for n in ranked if n not in kept]
    if count > len(pool):
        raise PlanError(f"{stack} can keep {len(pool)} blocks, as many as were measured, not {count}")
    return pool[:count]


def _spread(blocks: list[int], count: int) -> list[int]:
    """``count`` of ``blocks``, from the first to the last at even distances."""
    if count < 2:
        return blocks[:count]
    return [blocks[(2 * i * (len(blocks) - 1) + count - 1) // (2 * (count - 1))] for i in range(count)]
