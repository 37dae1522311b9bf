"""Means over pictures, how sure they are, and whether two rows differ by more than chance.

The interval of a mean is the bootstrap's over pictures, by percentiles: what the mean would be, had other pictures of
the same kind been taken. Plain percentiles are too close together for few pictures, by the same factor as a normal
distribution's are against Student's; they are moved outwards by that (Hesterberg, "What Teachers Should Know About the
Bootstrap", 2015, section 5.3).

Two rows are compared on the pictures that both have, by the differences of each picture. They differ beyond chance if
the 95 % interval of the mean difference leaves out 0, of six pictures at least: with five, all of one sign come about
by chance in one case of sixteen.

A value that is not finite, such as the PSNR of two equal pictures, or that could not be measured, is left out; how many
pictures count is said with every mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..extras import extra
from .results import Results, Row

LEVEL = 0.95
RESAMPLES = 10_000
SEED = 0
#: Pictures from which a difference may be called beyond chance.
FEWEST = 6
#: Numbers that are drawn at a time.
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures.

    Attributes:
        mean: of those that count.
        interval: low and high, 95 %; None for fewer than two pictures.
        pictures: that count.
    """

    mean: float
    interval: tuple[float, float] | None
    pictures: int

    @property
    def beyond_chance(self) -> bool:
        """Of a difference: whether it is not 0 by more than chance."""
        if self.interval is None or self.pictures < FEWEST:
            return False
        low, high = self.interval
        return low > 0 or high < 0


@dataclass(frozen=True)
class Statistics:
    """All of a benchmark's.

    Attributes:
        means: row to metric to its mean; a metric without any figure is not there.
        differences: row to an earlier row to metric to the mean of this one's values minus that one's, on the
            pictures that both have.
    """

    means: dict[str, dict[str, Estimate]]
    differences: dict[str, dict[str, dict[str, Estimate]]]


def statistics(results: Results) -> Statistics:
    """Means of every row, and paired differences of every row and each one before it."""
    bootstrap = Bootstrap()
    means = {row.name: _estimates(bootstrap, [row], results.metrics) for row in results.rows}
    differences: dict[str, dict[str, dict[str, Estimate]]] = {}
    for i, row in enumerate(results.rows):
        pairs = {other.name: _estimates(bootstrap, [row, other], results.metrics) for other in results.rows[:i]}
        differences[row.name] = {name: found for name, found in pairs.items() if found}
    return Statistics(means, differences)


class Bootstrap:
    """Means of resampled pictures; the same number of pictures is resampled the same way every time."""

    def __init__(self, resamples: int = RESAMPLES, seed: int = SEED, level: float = LEVEL):
        self.resamples, self.seed, self.level = resamples, seed, level

    def estimate(self, values: npt.ArrayLike) -> Estimate:
        """Mean and interval of one or more finite values."""
        sample = np.asarray(values, np.float64)
        mean = float(sample.mean())
        if len(sample) < 2:
            return Estimate(mean, None, len(sample))
        tail = tail_probability(len(sample), self.level)
        low, high = np.quantile(self.means(sample), [tail, 1 - tail])
        return Estimate(mean, (float(low), float(high)), len(sample))

    def means(self, sample: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """``(resamples,)``: the mean of each."""
        random, n = np.random.default_rng(self.seed), len(sample)
        rows = max(1, _BLOCK // n)
        blocks = [
            sample[random.integers(0, n, (min(rows, self.resamples - start), n))].mean(axis=1)
            for start in range(0, self.resamples, rows)
        ]
        return np.concatenate(blocks)


def tail_probability(n: int, level: float = LEVEL) -> float:
    """The share of resampled means below the interval of ``n`` pictures."""
    stats = extra("scipy.stats")
    return float(stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf((1 - level) / 2, n - 1)))


def _estimates(bootstrap: Bootstrap, rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, Estimate]:
    """Of one row's values, or of the differences of two."""
    found = {}
    for metric in metrics:
        columns = [_values(row, metric) for row in rows]
        # In one order, whatever the rows'.
        names = sorted(set(columns[0]).intersection(*columns[1:]))
        if names:
            signs = (1, -1)
            values = [sum(s * c[name] for s, c in zip(signs, columns, strict=False)) for name in names]
            found[metric] = bootstrap.estimate(values)
    return found


def _values(row: Row, metric: str) -> dict[str, float]:
    """Finite ones, by picture."""
    found = {name: scores.get(metric) for name, scores in row.scores.items()}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
