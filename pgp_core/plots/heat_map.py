"""All transformer blocks at a glance, and what a plan does to them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ReportError
from ..redundancy.report import Report
from ..unet.known import TOPOLOGIES
from ..unet.plan import PrunePlan
from ..unet.topology import stack_order
from .numbers import TITLES, check_measure, log_range, measured_on, over_all, short
from .page import INK, PAPER, SMALL, TEXT, TITLE, WIDTH, Page, Pixels, alone, matplotlib

_MAP = "cividis"
_ROW, _TOP, _BOTTOM, _LEFT, _RIGHT = 54, 142, 116, 138, 134
#: Most block numbers above the columns, and the widest cell.
_COLUMNS, _WIDEST = 10, 200


@dataclass(frozen=True)
class _Cell:
    row: float
    column: float
    value: float | None  # None: the block did not run
    removed: bool


@alone
def heat_map(
    report: Report,
    plan: PrunePlan | None = None,
    measure: str = "phi_cos",
    width: int = WIDTH,
    height: int | None = None,
) -> Pixels:
    """Draw a row per stack in running order and a column per block number; each cell is a block.

    A cell has the mean change from the block's input to its output over all timesteps, as a colour and as a
    number. With a plan, blocks that stay are framed, blocks that it removes are hatched and crossed out. A
    block that the unpruned family has and the report lacks has an empty, dashed cell; where a stack is shorter
    than others there is no cell.

    Args:
        report: of any model; stacks that it lacks come from the plan or the known family.
        plan: None for the measure alone.
        measure: ``phi_cos`` or ``psi_kl``.
        width: in pixels.
        height: in pixels; None for what fits the width and the number of stacks.

    Raises:
        ReportError: for an unknown measure, numbers that are not finite, or a plan for another family.
        PGPError: for a size that cannot be, or if matplotlib is missing.
    """
    check_measure(measure)
    if plan and plan.topology != report.topology:
        raise ReportError(
            f"plan {plan.name} is for {plan.topology}, the report is of {report.topology}: choose a plan of that family"
        )
    stacks, cells = _cells(report, plan, measure)
    page = Page(_TOP + _BOTTOM + _ROW * max(len(stacks), 4), width, height)
    w, h = page.size
    for y, (text, size) in zip((14, 46, 76), _head(report, plan, measure), strict=True):
        page.text(24, y, page.fitted(text, w - 48, size), size)
    values = [c.value for c in cells if c.value is not None]
    if not values:
        page.note("nothing was measured")
        return page.pixels()
    columns = int(max(c.column for c in cells)) + 1
    pitch = min((w - _LEFT - _RIGHT) / columns, _WIDEST)
    axes = page.axes(_LEFT, _TOP, pitch * columns, h - _TOP - _BOTTOM)
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(len(stacks) - 0.5, -0.5))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.xaxis.tick_top()
    step = math.ceil(columns / _COLUMNS)
    axes.set_xticks(range(0, columns, step), [str(i) for i in range(0, columns, step)])
    axes.set_yticks(range(len(stacks)), [page.fitted(_row_name(s), _LEFT - 24, SMALL) for s in stacks])
    axes.tick_params(which="both", length=0, pad=3)
    page.label_ticks(axes)
    page.text(24, _TOP - 6, "block", SMALL, va="bottom")
    norm = _norm(values)
    colours = matplotlib().colormaps[_MAP]
    for cell in cells:
        _draw(page, axes, cell, colours, norm, framed=plan is not None, numbers=columns <= 12)
    _colour_bar(page, colours, norm, _LEFT + pitch * columns + 26, min(values))
    _legend(page, plan is not None, any(c.value is None for c in cells))
    return page.pixels()


def _cells(report: Report, plan: PrunePlan | None, measure: str) -> tuple[list[str], list[_Cell]]:
    depths: dict[str, int] = {stack: max(blocks) + 1 if blocks else 0 for stack, blocks in report.blocks.items()}
    family = TOPOLOGIES.get(report.topology)
    for known in (family.depths if family else {}), {k: s.depth for k, s in plan.stacks.items()} if plan else {}:
        for stack, depth in known.items():
            depths[stack] = max(depths.get(stack, 0), depth)
    stacks = sorted(depths, key=stack_order)
    cells = []
    for row, stack in enumerate(stacks):
        for n in range(depths[stack]):
            block = report.blocks.get(stack, {}).get(n)
            stats = over_all(block.series, measure) if block else None
            removed = plan is not None and block is not None and not plan.keeps(stack, n)
            cells.append(_Cell(row, n, stats.mean if stats else None, removed))
    return stacks, cells


def _head(report: Report, plan: PrunePlan | None, measure: str) -> list[tuple[str, float]]:
    title = f"{TITLES[measure]} from a block's input to its output"
    on = f"mean over timesteps; {measured_on(report)}"
    blocks = [(stack, n, b.params) for stack, numbered in report.blocks.items() for n, b in numbered.items()]
    if plan is None:
        return [(title, TITLE), (on, SMALL), (f"{len(blocks)} blocks", SMALL)]
    cut = [params for stack, n, params in blocks if not plan.keeps(stack, n)]
    total = report.totals.get("params") or sum(params for _, _, params in blocks)
    amount = f"{len(cut)} of {len(blocks)} blocks, {_amount(sum(cut))} of {_amount(total)} parameters"
    return [(title, TITLE), (on, SMALL), (f"plan {plan.name} removes {amount}", TEXT)]


def _amount(number: int) -> str:
    for unit, size in ("G", 10**9), ("M", 10**6), ("k", 10**3):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _row_name(stack: str) -> str:
    """``down 2.1`` for down_blocks.2.attentions.1, ``mid 0``."""
    return stack.replace("_blocks.", " ").replace("_block", "").replace(".attentions.", " " * ("mid" in stack) or ".")


def _norm(values: list[float]) -> Any:
    """Colour scale: from 0 where it is linear, so that a dark cell is a block that does little."""
    colors = matplotlib("colors")
    log = log_range(values, decades=4)
    if log:
        return colors.LogNorm(*log, clip=True)
    return colors.Normalize(min(0.0, *values), max(0.0, *values) or 1.0, clip=True)


def _draw(page: Page, axes: Any, cell: _Cell, colours: Any, norm: Any, framed: bool, numbers: bool) -> None:
    patches = matplotlib("patches")
    x, y = cell.column, cell.row
    if cell.value is None:
        look = {"facecolor": PAPER, "edgecolor": "#777777", "linewidth": 1.4, "linestyle": (0, (3, 3))}
        axes.add_patch(patches.Rectangle((x - 0.42, y - 0.39), 0.84, 0.78, **look))
        return
    colour = colours(float(norm(max(cell.value, norm.vmin))))
    ink = _ink(colour)
    axes.add_patch(patches.Rectangle((x - 0.45, y - 0.43), 0.9, 0.86, facecolor=colour, edgecolor="none"))
    if framed and not cell.removed:
        # Black and white, so that it shows on a cell of any colour.
        for line, colour_of in (6.0, PAPER), (3.0, INK):
            look = {"facecolor": "none", "edgecolor": colour_of, "linewidth": line, "zorder": 2, "joinstyle": "miter"}
            axes.add_patch(patches.Rectangle((x - 0.45, y - 0.43), 0.9, 0.86, **look))
    if cell.removed:
        _cross_out(axes, x, y, ink)
    if numbers:
        # On a crossed-out cell the number stands on a plate, or the lines would run through it.
        plate = {"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none"} if cell.removed else None
        label = {"ha": "center", "va": "center", "color": INK if plate else ink, "bbox": plate, "zorder": 5}
        axes.text(x, y, short(cell.value), fontproperties=page.type(SMALL), **label)


def _cross_out(axes: Any, x: float, y: float, ink: str) -> None:
    lines = matplotlib("collections").LineCollection
    left, right, top, bottom = x - 0.45, x + 0.45, y - 0.43, y + 0.43
    stripes = []
    for i in range(1, 8):
        # Lines from the left or upper edge down to the lower or right one, four spacings along each.
        along = i / 4
        begin = (left, bottom - along * 0.86) if along <= 1 else (left + (along - 1) * 0.9, top)
        end = (left + along * 0.9, bottom) if along <= 1 else (right, bottom - (along - 1) * 0.86)
        stripes.append([begin, end])
    axes.add_collection(lines(stripes, colors=ink, linewidths=1.1, zorder=3), autolim=False)
    cross = [[(left, top), (right, bottom)], [(left, bottom), (right, top)]]
    axes.add_collection(lines(cross, colors=ink, linewidths=3.0, zorder=4), autolim=False)


def _ink(colour: tuple[float, float, float, float]) -> str:
    """Black or white, whichever stands out more from a colour (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return PAPER if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else INK


def _colour_bar(page: Page, colours: Any, norm: Any, left: float, least: float) -> None:
    _, h = page.size
    axes = page.axes(left, _TOP, 24, h - _TOP - _BOTTOM)
    axes.imshow(np.linspace(0, 1, 256)[:, None], cmap=colours, vmin=0, vmax=1, aspect="auto", origin="lower",
                extent=(0, 1, 0, 1), interpolation="nearest")  # fmt: skip
    log = not math.isclose(float(norm.inverse(0.5)), (norm.vmin + norm.vmax) / 2, rel_tol=1e-6)
    axes.set_xticks([])
    places = (0.0, 1 / 3, 2 / 3, 1.0) if log else (0.0, 0.25, 0.5, 0.75, 1.0)
    below = "≤" * (log and least < norm.vmin * (1 - 1e-9))
    axes.set_yticks(places, [below * (p == 0) + short(float(norm.inverse(p))) for p in places])
    axes.yaxis.tick_right()
    page.label_ticks(axes)
    if log:
        page.text(left - 6, _TOP - 14, "log scale", SMALL, va="bottom")


def _legend(page: Page, planned: bool, absent: bool) -> None:
    w, h = page.size
    axes = page.axes(0, h - 100, w, 92)
    axes.set(xlim=(0, w / 70), ylim=(92 / 50, 0))
    axes.set_axis_off()
    colours, norm = matplotlib().colormaps["Greys"], matplotlib("colors").Normalize(0, 1)
    entries: list[tuple[float | None, bool, str]] = []
    if planned:
        entries += [(0.15, False, "stays"), (0.15, True, "removed by the plan")]
    if absent:
        entries.append((None, False, "not in the model, or did not run"))
    x = 0.7
    for value, removed, text in entries:
        _draw(page, axes, _Cell(0.5, x, value, removed), colours, norm, planned, numbers=False)
        axes.text(x + 0.6, 0.5, text, va="center", fontproperties=page.type(SMALL), color=INK)
        x += 1.45 + len(text) * 0.163
    names = "rows: down 1.0 is down_blocks.1.attentions.0, and so on"
    axes.text(0.25, 1.5 if entries else 0.5, names, va="center", fontproperties=page.type(SMALL), color=INK)
