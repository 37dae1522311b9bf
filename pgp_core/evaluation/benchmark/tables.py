"""A benchmark's table, for a terminal and for a paper."""

from __future__ import annotations

from collections.abc import Mapping

from ...visible import visible
from ..metrics import METRICS
from ..summary import markdown_table
from .results import Results, Row
from .statistics import Estimate, Statistics

#: Characters that a line has at most, as far as one column fits.
WIDTH = 100
NONE = "—"
#: Behind a difference that may be chance, and behind the best mean.
CHANCE, BEST = "~", "*"


def text_table(results: Results, found: Statistics, width: int = WIDTH) -> list[str]:
    """Lines for a terminal: the means, and under each the difference to the first row. What is too wide goes on
    below; of columns without any figure, the last, only those that have room."""
    if not results.rows or not results.metrics:
        return []
    names = ["", *_names(results, found)]
    first = max(map(len, names)) + 2
    measured = {metric for means in found.means.values() for metric in means}
    order = sorted(results.metrics, key=lambda metric: metric not in measured)
    empty = len(order) - sum(metric in measured for metric in order)
    columns = [_column(results, found, metric) for metric in order]
    lines: list[str] = []
    while len(columns) > empty or (columns and not lines):
        room = width - first
        block: list[list[str]] = []
        while columns and (not block or len(columns[0][0]) + 2 <= room):
            room -= len(columns[0][0]) + 2
            block.append(columns.pop(0))
        lines += [""] if lines else []
        lines += [(name.ljust(first) + "  ".join(cells)).rstrip() for name, *cells in zip(names, *block, strict=True)]
    return lines


def legend(results: Results, found: Statistics) -> list[str]:
    """What the marks mean, and how many pictures count where it is not all."""
    count = len(results.pairs)
    lines = [f"mean over {count} picture{'s' if count != 1 else ''}"]
    if len(results.rows) > 1:
        lines[0] += f"; {BEST} the best"
    if any(found.differences.values()):
        lines[0] += f"; below, the difference to {results.rows[0].name}, {CHANCE} where it may be chance"
    for row in results.rows:
        fewer: dict[int, list[str]] = {}
        for metric in results.metrics:
            estimate = found.means[row.name].get(metric)
            if estimate and estimate.pictures < count:
                fewer.setdefault(estimate.pictures, []).append(metric)
        for number, metrics in fewer.items():
            which = "" if len(metrics) == len(found.means[row.name]) else f" for {', '.join(metrics)}"
            lines.append(f"{row.name}: {number} of {count} pictures{which}")
    if len({frozenset(row.scores) for row in results.rows}) > 1:
        lines.append("the rows have different pictures: their differences are of those that both have")
    return lines


def markdown(results: Results, found: Statistics) -> str:
    """The table for papers: means with 95 % intervals, the best in bold; columns that have figures, and below why the
    others have none."""
    measured = [m for m in results.metrics if any(m in means for means in found.means.values())]
    heads = ["", *(_head(metric) for metric in measured)]
    rows = []
    for row in results.rows:
        cells = []
        for metric in measured:
            estimate = found.means[row.name].get(metric)
            cells.append(_cell(metric, estimate, row.name in best(results, found, metric)))
        rows.append([_escaped(row.name), *cells])
    table = markdown_table(heads, rows)
    count = len(results.pairs)
    notes = [f"Mean over {count} picture{'s' if count != 1 else ''}, 95 % intervals by bootstrap over pictures."]
    notes += [f"{row}: {text}." for row, text in _compared(results, found)]
    notes += [f"{METRICS[m].head}: {METRICS[m].about}" for m in measured]
    notes += [f"{METRICS[m].head} is missing: {why}" for m, why in results.missing.items()]
    return table + "\n" + "\n".join(f"- {_escaped(note)}" for note in notes) + "\n"


def best(results: Results, found: Statistics, metric: str) -> set[str]:
    """The rows whose mean is the best of several, as it is shown; of those that have most pictures, as a row gains by
    one that it failed on."""
    means = {row.name: found.means[row.name].get(metric) for row in results.rows}
    most = max((e.pictures for e in means.values() if e is not None), default=0)
    there = {name: e.mean for name, e in means.items() if e is not None and e.pictures == most}
    if len(there) < 2 or not METRICS[metric].ranked:
        return set()
    decimals = METRICS[metric].decimals
    distances = {name: METRICS[metric].distance(round(mean, decimals)) for name, mean in there.items()}
    return {name for name, distance in distances.items() if distance == min(distances.values())}


def _compared(results: Results, found: Statistics) -> list[tuple[str, str]]:
    """For each row but the first, in which metrics it differs from the first beyond chance."""
    told = []
    for row in results.rows[1:]:
        differences = found.differences.get(row.name, {}).get(results.rows[0].name, {})
        sure = [f"{METRICS[m].head} {_signed(m, e)}" for m, e in differences.items() if e.beyond_chance]
        told.append((row.name, f"beyond chance against {results.rows[0].name}: {', '.join(sure) or 'nothing'}"))
    return told


def _names(results: Results, found: Statistics) -> list[str]:
    names = []
    for row in results.rows:
        names.append(visible(row.name))
        if _against_first(results, found, row):
            names.append("")
    return names


def _column(results: Results, found: Statistics, metric: str) -> list[str]:
    """Head and cells, all of one width."""
    cells = [_head(metric)]
    winners = best(results, found, metric)
    for row in results.rows:
        estimate = found.means[row.name].get(metric)
        mark = BEST if row.name in winners else " "
        cells.append(NONE + " " if estimate is None else _figure(metric, estimate.mean) + mark)
        differences = _against_first(results, found, row)
        if differences:
            difference = differences.get(metric)
            cells.append("" if difference is None else _signed(metric, difference) + _chance(difference))
    width = max(map(len, cells))
    return [cell.rjust(width) for cell in cells]


def _against_first(results: Results, found: Statistics, row: Row) -> Mapping[str, Estimate]:
    return found.differences.get(row.name, {}).get(results.rows[0].name, {})


def _chance(difference: Estimate) -> str:
    return " " if difference.beyond_chance else CHANCE


def _head(metric: str) -> str:
    known = METRICS[metric]
    return f"{known.head} {known.arrow}".rstrip()


def _figure(metric: str, value: float) -> str:
    return f"{value:.{METRICS[metric].decimals}f}"


def _signed(metric: str, estimate: Estimate) -> str:
    return f"{estimate.mean:+.{METRICS[metric].decimals}f}"


def _cell(metric: str, estimate: Estimate | None, is_best: bool) -> str:
    if estimate is None:
        return NONE
    figure = _figure(metric, estimate.mean)
    figure = f"**{figure}**" if is_best else figure
    if estimate.interval is None:
        return figure
    return f"{figure} [{', '.join(_figure(metric, x) for x in estimate.interval)}]"


def _escaped(text: str) -> str:
    """What Markdown would take for a border or for itself."""
    text = visible(text)
    for character in "\\|*`<[":
        text = text.replace(character, "\\" + character)
    return text
