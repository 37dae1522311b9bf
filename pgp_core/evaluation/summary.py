"""Means over photographs, spreads over seeds, and their Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

#: Scores of one method: photograph to metric to one value per seed.
Scores = dict[str, dict[str, list[float]]]

#: Metric to its head in a table and its decimals; an arrow says which way is better.
HEADS = {
    "psnr_y": ("PSNR-Y (dB) ↑", 2),
    "ssim": ("SSIM ↑", 4),
    "haarpsi": ("HaarPSI ↑", 4),
    "gmsd": ("GMSD ↓", 4),
    "sharpness": ("sharpness (HQ: 1)", 2),
    "flat_noise": ("flat noise (HQ: 0)", 2),
}


def summarise(scores: Scores) -> dict[str, Any]:
    """``mean`` over photographs and seeds by metric, and ``spread``: the standard deviation over seeds of the
    mean over photographs (None for fewer than two)."""
    per_seed = {m: over_photographs(scores, m) for m in next(iter(scores.values()))}
    return {
        "mean": {m: statistics.fmean(v) for m, v in per_seed.items()},
        "spread": {m: spread(v) for m, v in per_seed.items()},
    }


def over_photographs(scores: Scores, metric: str) -> list[float]:
    """The mean over photographs, one per seed."""
    return [statistics.fmean(v) for v in zip(*(s[metric] for s in scores.values()), strict=True)]


def spread(values: Sequence[float]) -> float | None:
    """Sample standard deviation, or None for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else None


def figure(metric: str, mean: float, deviation: float | None, sign: bool = False) -> str:
    """``25.87`` or ``25.87 ± 0.03`` (with ``sign``: ``+25.87``), with the metric's decimals."""
    decimals = HEADS[metric][1]
    text = f"{mean:{'+' if sign else ''}.{decimals}f}"
    return text if deviation is None else f"{text} ± {deviation:.{decimals}f}"


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
