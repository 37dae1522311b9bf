"""The change of each module over the timesteps of a sampling run (Section 3.1)."""

from __future__ import annotations

from ..redundancy.report import MODULES, Report
from .boxes import finish_axis
from .numbers import TITLES, check_measure, log_range, measured_on, per_timestep
from .page import INK, PAPER, SMALL, TITLE, WIDTH, Page, Pixels, alone, matplotlib

#: Colour (Okabe and Ito's), marker and dashes; any one of the three tells modules apart.
_LINES = [
    ("#0072b2", "o", "-"),
    ("#d55e00", "s", (0, (6, 2))),
    ("#009e73", "^", (0, (1.5, 1.5))),
    ("#111111", "D", (0, (8, 2, 1.5, 2))),
    ("#cc79a7", "v", (0, (4, 1.5, 1.5, 1.5, 1.5, 1.5))),
    ("#a06a00", "P", (0, (10, 4))),
]
_TOP, _BOTTOM, _LEFT = 112, 150, 86


@alone
def over_time(report: Report, measure: str = "phi_cos", width: int = WIDTH, height: int | None = None) -> Pixels:
    """Draw a line per module: the median, with a band from the lower to the upper quartile.

    Time runs as sampling does, from the noisy timestep 999 at the left to 0 at the right.

    Args:
        report: with whatever modules it has.
        measure: ``phi_cos`` or ``psi_kl``.
        width: in pixels.
        height: in pixels; None for what fits the width.

    Raises:
        ReportError: for an unknown measure or numbers that are not finite.
        PGPError: for a size that cannot be, or if matplotlib is missing.
    """
    check_measure(measure)
    page = Page(720, width, height)
    w, h = page.size
    lines = {name: per_timestep(report.modules[name], measure) for name in MODULES if name in report.modules}
    lines = {name: line for name, line in lines.items() if line}
    log = log_range(v for line in lines.values() for _, s in line for v in (s.q1, s.median, s.q3))
    scale = " (log scale)" if log else ""
    page.text(24, 18, f"{TITLES[measure]} from the timestep before{scale}", TITLE)
    page.text(24, 50, page.fitted(measured_on(report), w - 48, SMALL), SMALL)
    if not lines:
        page.note("nothing was measured")
        return page.pixels()
    axes = page.axes(_LEFT, _TOP - 22, w - _LEFT - 30, h - _TOP - _BOTTOM + 22)
    if log:
        axes.set_yscale("log")
    floor = log[0] if log else 0.0
    times = sorted({t for line in lines.values() for t, _ in line})
    handles = []
    for name, line in lines.items():
        colour, marker, dashes = _LINES[list(MODULES).index(name) % len(_LINES)]
        t: list[float] = [t for t, _ in line]
        if len(times) == 1:
            # Side by side, or they would hide each other.
            t = [times[0] - 0.25 * (list(lines).index(name) - (len(lines) - 1) / 2)]
        low, middle, high = ([max(getattr(s, q), floor) for _, s in line] for q in ("q1", "median", "q3"))
        look = {"color": colour, "marker": marker, "linestyle": dashes, "linewidth": 2.4, "markersize": 9}
        edge = {"markeredgecolor": PAPER, "markeredgewidth": 0.8, "markerfacecolor": colour, "label": name}
        handles += axes.plot(t, middle, **look, **edge, markevery=max(1, len(t) // 20), zorder=3)
        if len(t) > 1:
            axes.fill_between(t, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)
        else:
            axes.vlines(t, low, high, colors=colour, linewidth=2.4, linestyles=dashes, zorder=2)
    margin = 0.03 * (times[-1] - times[0]) or 1.0
    axes.set_xlim(times[-1] + margin, times[0] - margin)
    if log:
        axes.set_ylim(log[0] / 1.2, log[1] * 1.2)
    else:
        axes.set_ylim(0, 1.08 * max(s.q3 for line in lines.values() for _, s in line) or 1.0)
    finish_axis(page, axes)
    if len(times) <= 6:
        axes.set_xticks(times)
    else:
        axes.xaxis.set_major_locator(matplotlib("ticker").MaxNLocator(nbins=7, integer=True))
    axes.xaxis.set_major_formatter(matplotlib("ticker").FuncFormatter(lambda t, _: f"{t:.0f}"))
    page.label_ticks(axes)
    axes.set_xlabel("timestep (sampling runs from left to right)", fontproperties=page.type(), color=INK, labelpad=6)
    legend = page.figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 26 / h),
        ncols=6,
        prop=page.type(),
        frameon=False,
        labelcolor=INK,
        handlelength=2.8,
        columnspacing=1.4,
        handletextpad=0.5,
        borderpad=0,
        borderaxespad=0.5,
    )
    legend.set_in_layout(False)
    page.text(w / 2, h - 12, "lines: median    bands: middle half", SMALL, ha="center", va="bottom")
    return page.pixels()
