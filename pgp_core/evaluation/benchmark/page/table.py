"""The table of means, as data for the page and as text for papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ....visible import visible
from ...metrics import Metric
from ..results import Results, Row
from ..statistics import FEWEST, Estimate, statistics


def table(results: Results, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Means with their intervals, differences of each two rows, and which row is best."""
    rows, names = results.rows, [p.name for p in results.pairs]
    found = statistics(results)
    cells = [[_cell(found.means[row.name].get(m.name)) for m in metrics] for row in rows]

    def difference(a: int, b: int, m: Metric) -> dict[str, Any] | None:
        """Of a row to another one; each two are compared once, the later one to the earlier one."""
        later, earlier = rows[max(a, b)], rows[min(a, b)]
        estimate = found.differences.get(later.name, {}).get(earlier.name, {}).get(m.name)
        return _difference(estimate, a < b, _gain(rows[a], rows[b], m, names)) if estimate else None

    best = [_best([_values(row, m.name, names) for row in rows], m) for m in metrics]
    return {
        "cells": cells,
        "best": best,
        "differences": [[[difference(a, b, m) for m in metrics] for b in range(len(rows))] for a in range(len(rows))],
        "markdown": markdown(results, metrics, cells, best),
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


def _best(values: Sequence[dict[str, float]], metric: Metric) -> int | None:
    """The row whose mean is the best, on the pictures that all have; None where there is nothing to choose from."""
    there = {r: found for r, found in enumerate(values) if found}
    both = set.intersection(*(set(found) for found in there.values())) if there else set()
    if len(there) < 2 or not both:
        return None
    return min(there, key=lambda r: metric.distance(sum(there[r][n] for n in sorted(both)) / len(both)))


def markdown(
    results: Results, metrics: Sequence[Metric], cells: Sequence[Sequence[Any]], best: Sequence[int | None]
) -> str:
    """Rows by metrics, the best bold."""
    heads = ["", *(_plain(f"{m.head} {m.arrow}".strip()) for m in metrics)]
    lines = [_line(heads), _line(["---", *["---:"] * len(metrics)])]
    for r, row in enumerate(results.rows):
        texts = [_text(cells[r][c], m) for c, m in enumerate(metrics)]
        bold = [f"**{t}**" if best[c] == r else t for c, t in enumerate(texts)]
        lines.append(_line([_plain(row.name), *bold]))
    return "\n".join(lines) + "\n"


def latex(
    results: Results, metrics: Sequence[Metric], cells: Sequence[Sequence[Any]], best: Sequence[int | None]
) -> str:
    """The same for LaTeX, with booktabs' rules."""
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}

    def head(m: Metric) -> str:
        arrow = arrows.get(m.arrow, f"$\\rightarrow$ {m.arrow[2:]}" if m.arrow else "")
        return f"{_escaped(m.head)} {arrow}".strip()

    lines = [rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}", r"\toprule"]
    lines += [" & ".join(["", *map(head, metrics)]) + r" \\", r"\midrule"]
    for r, row in enumerate(results.rows):
        texts = [_text(cells[r][c], m) for c, m in enumerate(metrics)]
        bold = [rf"\textbf{{{t}}}" if best[c] == r else t for c, t in enumerate(texts)]
        lines.append(" & ".join([_escaped(visible(row.name)), *bold]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _text(cell: Any, metric: Metric) -> str:
    return f"{cell['mean']:.{metric.decimals}f}" if cell else "-"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Nothing in a name is Markdown or HTML."""
    text = visible(text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#&" else c for c in text)


_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Δ": r"$\Delta$",
    **{c: f"\\{c}" for c in "&%$#_{}"},
}


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)
