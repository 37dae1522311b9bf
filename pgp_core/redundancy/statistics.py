"""Statistics of a stream of numbers, without keeping it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

#: Numbers kept for quartiles.
RESERVOIR = 256


@dataclass
class Running:
    """Count, mean, spread, extremes, and a bounded reservoir for quartiles.

    The reservoir is a uniform sample of all numbers so far (Vitter's algorithm R), drawn from a seeded generator,
    and holds every number while there are no more than it takes.
    """

    count: int = 0
    mean: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    _squares: float = 0.0
    reservoir: list[float] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(0), repr=False)

    def add(self, values: Iterable[float]) -> None:
        """Take more numbers."""
        for x in values:
            self.count += 1
            change = x - self.mean
            self.mean += change / self.count
            # Welford's update: no difference of large sums.
            self._squares += change * (x - self.mean)
            self.low, self.high = min(self.low, x), max(self.high, x)
            if len(self.reservoir) < RESERVOIR:
                self.reservoir.append(x)
            elif (place := self._random.randrange(self.count)) < RESERVOIR:
                self.reservoir[place] = x

    @property
    def spread(self) -> float:
        """Standard deviation with ``n - 1`` in the denominator; 0 for fewer than two numbers."""
        return math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else 0.0

    def quartiles(self) -> tuple[float, float, float]:
        """25, 50 and 75 % of the reservoir, interpolated linearly."""
        ordered = sorted(self.reservoir)

        def at(share: float) -> float:
            place = share * (len(ordered) - 1)
            below = math.floor(place)
            above = min(below + 1, len(ordered) - 1)
            return ordered[below] + (ordered[above] - ordered[below]) * (place - below)

        return at(0.25), at(0.5), at(0.75)

    def to_json(self) -> dict[str, Any]:
        """JSON data; nothing but a count of 0 where there are no numbers."""
        if not self.count:
            return {"count": 0}
        q1, median, q3 = self.quartiles()
        return {
            "count": self.count,
            "mean": self.mean,
            "std": self.spread,
            "min": self.low,
            "q1": q1,
            "median": median,
            "q3": q3,
            "max": self.high,
        }
