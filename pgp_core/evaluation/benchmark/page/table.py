"""The table of means, as data for the page and as text for papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ....visible import visible
from ...metrics import Metric
from .. import tables
from ..results import Results, Row
from ..statistics import FEWEST, Estimate, statistics


def table(results: Results, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Means with their intervals, differences of each two rows, and which rows are best."""
    rows, names = results.rows, [p.name for p in results.pairs]
    found = statistics(results)
    cells = [[_cell(found.means[row.name].get(m.name)) for m in metrics] for row in rows]

    def difference(a: int, b: int, m: Metric) -> dict[str, Any] | None:
        """Of a row to another one; each two are compared once, the later one to the earlier one."""
        later, earlier = rows[max(a, b)], rows[min(a, b)]
        estimate = found.differences.get(later.name, {}).get(earlier.name, {}).get(m.name)
        return _difference(estimate, a < b, _gain(rows[a], rows[b], m, names)) if estimate else None

    winners = [tables.best(results, found, m.name) for m in metrics]
    best = [[r for r, row in enumerate(rows) if row.name in bold] for bold in winners]
    return {
        "cells": cells,
        "best": best,
        "differences": [[[difference(a, b, m) for m in metrics] for b in range(len(rows))] for a in range(len(rows))],
        "markdown": tables.markdown(results, found),
        "latex": latex(results, metrics, cells, best),
    }


def _values(row: Row, metric: str, names: Sequence[str]) -> dict[str, float]:
    found = {name: row.scores.get(name, {}).get(metric) for name in names}
    return {name: v for name, v in found.items() if v is not None and math.isfinite(v)}


def _cell(estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    low, high = estimate.interval or (None, None)
    return {"mean": estimate.mean, "low": low, "high": high, "count": estimate.pictures}


def _difference(estimate: Estimate, turned: bool, gain: float) -> dict[str, Any]:
    """How much one row is above another one, turned if it was estimated the other way round."""
    low, high = estimate.interval or (None, None)
    mean = estimate.mean
    if turned:
        mean = -mean
        low, high = (None if x is None else -x for x in (high, low))
    few = estimate.pictures < FEWEST
    beyond = None if few else estimate.beyond_chance
    return {"mean": mean, "low": low, "high": high, "count": estimate.pictures, "beyond": beyond, "better": gain > 0}


def _gain(a: Row, b: Row, metric: Metric, names: Sequence[str]) -> float:
    """By how much the first row is nearer to the best, on the pictures that both have."""
    ours, theirs = _values(a, metric.name, names), _values(b, metric.name, names)
    return sum(metric.distance(theirs[n]) - metric.distance(v) for n, v in ours.items() if n in theirs)


def latex(
    results: Results, metrics: Sequence[Metric], cells: Sequence[Sequence[Any]], best: Sequence[Sequence[int]]
) -> str:
    """Rows by metrics for LaTeX, with booktabs' rules, the best bold."""
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}

    def head(m: Metric) -> str:
        arrow = arrows.get(m.arrow, f"$\\rightarrow$ {m.arrow[2:]}" if m.arrow else "")
        return f"{_escaped(m.head)} {arrow}".strip()

    lines = [rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}", r"\toprule"]
    lines += [" & ".join(["", *map(head, metrics)]) + r" \\", r"\midrule"]
    for r, row in enumerate(results.rows):
        texts = [_text(cells[r][c], m) for c, m in enumerate(metrics)]
        bold = [rf"\textbf{{{t}}}" if r in best[c] else t for c, t in enumerate(texts)]
        lines.append(" & ".join([_escaped(visible(row.name)), *bold]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _text(cell: Any, metric: Metric) -> str:
    return f"{cell['mean']:.{metric.decimals}f}" if cell else "-"


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Δ": r"$\Delta$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)
