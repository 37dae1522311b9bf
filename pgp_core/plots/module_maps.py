"""What a model's features look like over the timesteps of a sampling run (Figure 3a)."""

from __future__ import annotations

import torch

from ..redundancy.report import MODULES, Report
from .page import WIDTH, Pixels
from .strips import feature_maps

COLUMNS = 5


def module_maps(report: Report, width: int = WIDTH, height: int | None = None) -> Pixels:
    """Draw a row for each module and a column for each of up to :data:`COLUMNS` timesteps, the noisiest at the left.

    Args:
        report: with the maps that it has; one without any says so.
        width: in pixels.
        height: in pixels; None for what fits the width.

    Raises:
        PGPError: for a size that cannot be, or if matplotlib is missing.
    """
    steps = sorted({int(t) for maps in report.maps.values() for t in maps}, reverse=True)
    if len(steps) > COLUMNS:
        steps = [steps[round(i * (len(steps) - 1) / (COLUMNS - 1))] for i in range(COLUMNS)]
    shown: list[tuple[str, torch.Tensor]] = []
    for module in MODULES:
        maps = report.maps.get(module, {})
        if not maps:
            continue
        for t in steps:
            found = maps.get(str(t))
            # A timestep that a module lacks stays a hole, so that columns are timesteps.
            values = found.values() if found else torch.full((1, 1), torch.nan)
            shown.append((f"{module}, t = {t}", values))
    title = "Features over timesteps, mean of channels, each on its own scale"
    return feature_maps(shown, len(steps) or None, title, width, height)
