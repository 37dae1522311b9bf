"""Until benchmark/statistics.py is there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    x = np.asarray(values, np.float64)
    mean = float(x.mean())
    if len(x) < 2:
        return mean, None, None
    means = x[np.random.default_rng(0).integers(0, len(x), (2000, len(x)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return mean, float(low), float(high)
