"""Redundancy reports and feature maps to draw."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from pgp_core.redundancy.maps import FeatureMap, shrunk
from pgp_core.redundancy.report import ALL, MODULES, Block, Report, Series, Stats
from pgp_core.unet.known import SDXL
from pgp_core.unet.topology import Topology

TIMES = range(949, 0, -50)


def stats(middle: float) -> Stats:
    """Quartiles and extremes at known fractions of the median."""
    parts = {"min": 0.25, "q1": 0.5, "median": 1.0, "q3": 1.5, "max": 2.0, "mean": 1.125}
    return Stats(count=40, std=middle / 2, **{k: f * middle for k, f in parts.items()})


def series(middle: float, times: Any = TIMES) -> Series:
    both = {"phi_cos": stats(middle), "psi_kl": stats(4 * middle)}
    return {**{str(t): {m: stats(s.median * (0.5 + t / 1000)) for m, s in both.items()} for t in times}, ALL: both}


def report(
    topology: Topology = SDXL,
    times: Any = TIMES,
    value: Callable[[int, int], float] = lambda row, n: 0.02 * (1 + row) + 0.004 * n,
    **more: Any,
) -> Report:
    """A report whose values follow a rule: of modules by their place, of blocks by row and number."""
    given: dict[str, Any] = {
        "topology": topology.name,
        "model": {"name": "a model", "fingerprint": "00"},
        "totals": {"params": 2_567_463_684, "macs": 3_380_620_000_000},
        "measured": {"pictures": ["a", "b"], "steps": 20},
        "modules": {m: series(0.1 * (1 + i), times) for i, m in enumerate(MODULES)},
        "blocks": {
            stack: {n: Block(20_000_000, 3 * 10**10, series(value(row, n), times)) for n in range(depth)}
            for row, (stack, depth) in enumerate(topology.depths.items())
        },
    }
    return Report(**{**given, **more})


PICTURES = torch.rand(3, 3, 40, 56, generator=torch.Generator().manual_seed(1))


MAPS = [(f"t = {t}", torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(t))) for t in TIMES]


def module_features(modules: Sequence[str] = tuple(MODULES), steps: int = 20) -> dict[str, dict[str, FeatureMap]]:
    """A ramp from left to right at every timestep of every module."""
    ramp = torch.linspace(0, 1, 12).expand(1, 8, 12)
    return {m: {str(951 - 50 * i): FeatureMap.of(shrunk(ramp)) for i in range(steps)} for m in modules}
