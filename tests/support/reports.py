"""Redundancy reports with chosen numbers, and what a plan keeps."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from pgp_core.redundancy.report import Block, Report, Stats
from pgp_core.unet.costs import block_cost, unet_cost
from pgp_core.unet.known import SHAPES
from pgp_core.unet.plan import PrunePlan
from pgp_core.unet.topology import Topology

BlockId = tuple[str, int]


def blocks_of(topology: Topology, *stages: str) -> list[BlockId]:
    """Every block of a family, or of some stages."""
    stacks = [s for s in topology.depths if not stages or topology.stage(s) in stages]
    return [(s, n) for s in stacks for n in range(topology.depths[s])]


def stats(mean: float) -> Stats:
    return Stats(4, mean, 0.0, mean, mean, mean, mean, mean)


def report(topology: Topology, scores: Mapping[BlockId, tuple[float, float]], **changes: Any) -> Report:
    """A report whose blocks have these means of Φ_cos and Ψ_KL, and the costs of the family's own shape."""
    shape = SHAPES[topology.name]
    blocks: dict[str, dict[int, Block]] = {s: {} for s in topology.depths}
    for (stack, number), (phi, psi) in scores.items():
        # Levels: 1 is halved once, 2 twice, of a 128 x 128 latent.
        level = 1 if stack.startswith(("down_blocks.1", "up_blocks.1")) else 2
        cost = block_cost(shape.channels[level], shape.context_dim, (128 >> level) ** 2)
        series = {t: {"phi_cos": stats(phi), "psi_kl": stats(psi)} for t in ("500", "all")}
        blocks[stack][number] = Block(cost.params, cost.macs, series)
    cost = unet_cost(shape, blocks)
    about: dict[str, Any] = {
        "topology": topology.name,
        "model": {"name": "drawn", "fingerprint": "0"},
        "totals": {"params": cost.params, "macs": cost.macs},
        "measured": {"latent": [128, 128]},
        "modules": {},
        "blocks": blocks,
    }
    return Report(**{**about, **changes})


def drawn(topology: Topology, seed: int, **changes: Any) -> Report:
    """A report with scores drawn from a seed, all different."""
    g = random.Random(seed)
    return report(topology, {b: (g.uniform(0.3, 1.5), g.uniform(1.5, 5)) for b in blocks_of(topology)}, **changes)


def kept(plan: PrunePlan) -> dict[str, tuple[int, ...]]:
    """Which blocks of each stack a plan keeps."""
    return {s: e.keep for s, e in plan.stacks.items()}
