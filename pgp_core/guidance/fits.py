"""Whether guidance meets the UNet that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..unet.known import TOPOLOGIES
from ..unet.plan import PrunePlan, load_plan, presets
from .spec import GuidanceSpec

Blocks = Mapping[str, "tuple[int, ...]"]


def other_plan(spec: GuidanceSpec, blocks: Blocks) -> str | None:
    """What to say where guidance was trained with other transformer blocks than a UNet runs.

    No error: guidance works with any plan, only less well than with its own.

    Args:
        blocks: numbers of the blocks that the UNet runs, by diffusers' stack names, see
            :attr:`pgp_core.unet.plan.PrunePlan.blocks`.

    Returns:
        a line that follows a file's name and a colon; None where the blocks are the same, and where the guidance does
        not say which they were (it is untrained, or a stranger's, or an old file of a plan that is not bundled).
    """
    had = _trained_with(spec) if spec.trained else None
    topology = TOPOLOGIES.get(spec.base)
    if had is None or topology is None:
        return None
    name, kept = had
    for stack, now in blocks.items():
        # What a plan does not mention stays whole.
        then = kept.get(stack, tuple(range(topology.depths.get(stack, 0))))
        if tuple(now) != then:
            called = f"plan {name}" if name else "another plan"
            return (
                f"it was trained with {called}, the model has other blocks ({stack}: {_said(now)}, then "
                f"{_said(then)}), so results may be worse: use that plan, or guidance that was trained with this one"
            )
    return None


def _trained_with(spec: GuidanceSpec) -> tuple[str | None, Blocks] | None:
    """Name and blocks of the plan in training."""
    if spec.plan_blocks is not None:
        return spec.plan_name, spec.plan_blocks
    # Old files hold the plan's hash alone, which says something of plans that are known.
    return next(((p.name, p.blocks) for p in _known(spec.base) if p.sha256() == spec.plan_sha256), None)


def _known(base: str) -> list[PrunePlan]:
    bundled = [load_plan(name) for name in presets()]
    if base not in TOPOLOGIES:
        return bundled
    whole = PrunePlan.full(TOPOLOGIES[base])
    # The second is how a file without metadata is read.
    return [*bundled, whole, replace(whole, provenance={})]


def _said(blocks: tuple[int, ...]) -> str:
    return ", ".join(map(str, blocks)) or "none"
