"""Box plots of the change between adjacent timesteps, per module (the paper's Figure 3b and c)."""

from __future__ import annotations

from typing import Any

from ..redundancy.report import MEASURES, MODULES, Report
from .numbers import TITLES, check_measure, log_range, measured_on, over_all, tick
from .page import FAINT, INK, SMALL, TITLE, WIDTH, Page, Pixels, alone, matplotlib

_FILL = "#9ecae1"
_TOP, _BOTTOM, _LEFT, _GAP = 112, 86, 86, 92


@alone
def boxes(report: Report, measure: str | None = None, width: int = WIDTH, height: int | None = None) -> Pixels:
    """Draw a box per module: quartiles, median, mean as a diamond, whiskers to the extremes.

    Args:
        report: with whatever modules it has; a dash stands for those that were not measured.
        measure: one of ``phi_cos`` and ``psi_kl``; None for both side by side.
        width: in pixels.
        height: in pixels; None for what fits the width.

    Raises:
        ReportError: for an unknown measure or numbers that are not finite.
        PGPError: for a size that cannot be, or if matplotlib is missing.
    """
    measures = MEASURES if measure is None else (check_measure(measure),)
    page = Page(600, width, height)
    w, h = page.size
    page.text(24, 18, page.fitted("Change between adjacent timesteps", w - 48, TITLE), TITLE)
    page.text(24, 50, page.fitted(measured_on(report), w - 48, SMALL), SMALL)
    each = (w - 24 - _LEFT - (len(measures) - 1) * _GAP) / len(measures)
    for i, m in enumerate(measures):
        axes = page.axes(_LEFT + i * (each + _GAP), _TOP, each, h - _TOP - _BOTTOM)
        _panel(page, axes, report, m)
    page.text(w / 2, h - 12, "whiskers: smallest to largest    ◆ mean    ━ median", SMALL, ha="center", va="bottom")
    return page.pixels()


def _panel(page: Page, axes: Any, report: Report, measure: str) -> None:
    names = [*MODULES, *(name for name in report.modules if name not in MODULES)]
    shown = {name: stats for name in names if (stats := over_all(report.modules.get(name, {}), measure))}
    log = log_range(v for s in shown.values() for v in (s.min, s.q1, s.median, s.q3, s.max))
    if log:
        axes.set_yscale("log")
        axes.set_ylim(log[0] / 1.3, log[1] * 1.3)
    floor = log[0] if log else 0.0
    plain = {"ha": "center", "fontproperties": page.type(), "color": INK}
    at: list[int] = []
    given: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        if name not in shown:
            axes.text(place, 0.5, "\N{EN DASH}", transform=axes.get_xaxis_transform(), **plain)
            continue
        s = shown[name]
        ends = {"whislo": s.min, "q1": s.q1, "med": s.median, "q3": s.q3, "whishi": s.max, "mean": s.mean}
        at.append(place)
        given.append({k: max(v, floor) for k, v in ends.items()} | {"fliers": []})
    if given:
        line = {"color": INK, "linewidth": 1.6, "linestyle": "-"}
        diamond = {"marker": "D", "markersize": 7, "markerfacecolor": "white", "markeredgecolor": INK}
        axes.bxp(
            given,
            positions=at,
            widths=0.6,
            patch_artist=True,
            showfliers=False,
            showmeans=True,
            shownotches=False,
            meanline=False,
            boxprops={"facecolor": _FILL, "edgecolor": INK, "linewidth": 1.6, "linestyle": "-"},
            medianprops={**line, "linewidth": 4, "solid_capstyle": "butt"},
            meanprops={**diamond, "markeredgewidth": 1.4, "linestyle": "none"},
            whiskerprops=line,
            capprops=line,
            manage_ticks=False,
        )
    else:
        axes.set_yticks([])
        axes.text(0.5, 0.6, "nothing was measured", transform=axes.transAxes, **plain)
    axes.set_xlim(-0.6, len(names) - 0.4)
    if not log:
        top = max((s.max for s in shown.values()), default=0.0)
        low = min((s.min for s in shown.values()), default=0.0)
        axes.set_ylim(min(low, 0) * 1.05, max(top * 1.08, 0) or 1.0)
    if given:
        finish_axis(page, axes)
    axes.set_xticks(range(len(names)), [page.fitted(n, 110, SMALL) for n in names])
    page.label_ticks(axes)
    title = TITLES[measure] + (" (log scale)" if log else "")
    axes.set_title(title, fontproperties=page.type(), color=INK, loc="left", pad=10, y=1.0)


def finish_axis(page: Page, axes: Any) -> None:
    """Few, short numbers on the value axis, with faint lines across."""
    ticker = matplotlib("ticker")
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_locator(ticker.LogLocator(numticks=6))
    else:
        axes.yaxis.set_major_locator(ticker.MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: tick(value)))
    axes.grid(visible=True, axis="y", which="major", color=FAINT, linewidth=0.8, linestyle="-", alpha=1.0)
