"""What a metric is: a number of a picture, by the name that it has in tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: in JSON, CSV and ``--metrics``: ``psnr_y``.
        head: over its column: ``PSNR-Y (dB)``.
        reference: what it compares with: ``"hq"``, ``"lq"``, or None for one that looks at the picture alone.
        best: ``"high"``, ``"low"``, or the value that is best, such as HQ's 1 for sharpness.
        decimals: that are shown.
        about: one sentence: what it measures, and by which definition.
        measure: ``measure(result, reference)``, or ``measure(result)``; RGB arrays ``(H, W, 3)`` float64 in [0, 1].
        network: whether it is one, which is loaded once and runs in the process that has the device; the others run in
            worker processes.
        ranked: whether more of what is best makes a better picture. Not of how faithful one is to its input: nothing is
            more so than the input enlarged, and HQ is less so than that. Tables then name no best.
    """

    name: str
    head: str
    reference: str | None
    best: str | float
    decimals: int
    about: str
    measure: Callable[..., float] | None = None
    network: bool = False
    ranked: bool = True

    @property
    def arrow(self) -> str:
        """Which way is better, as tables show it."""
        if not self.ranked:
            return ""
        return {"high": "↑", "low": "↓"}.get(str(self.best), f"→ {self.best:g}" if isinstance(self.best, float) else "")

    def distance(self, value: float) -> float:
        """How far a value is from the best: of two, the smaller is the better one."""
        if isinstance(self.best, float):
            return abs(value - self.best)
        return -value if self.best == "high" else value


def known(*metrics: Metric) -> dict[str, Metric]:
    """By name, in the order of tables."""
    return {m.name: m for m in metrics}
