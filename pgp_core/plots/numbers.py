"""Numbers of a report, as plots need them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ..errors import ReportError
from ..redundancy.report import ALL, MEASURES, Report, Series, Stats

#: How the measures are called in plots.
TITLES = {"phi_cos": "Φ_cos, cosine change", "psi_kl": "Ψ_KL, divergence"}

#: Beyond it, and below its inverse, numbers are drawn as if they were at it (or 0): they would need too much room.
_LARGEST = 1e99


def check_measure(measure: str) -> str:
    """The measure itself.

    Raises:
        ReportError: if there is none of that name.
    """
    if measure not in MEASURES:
        raise ReportError(f"there is no measure {measure!r}; choose one of {', '.join(MEASURES)}")
    return measure


def over_all(series: Series, measure: str) -> Stats | None:
    """Statistics over all timesteps, or None if there are none."""
    stats = series.get(ALL, {}).get(measure)
    return bounded(stats) if stats and stats.count else None


def per_timestep(series: Series, measure: str) -> list[tuple[int, Stats]]:
    """``(timestep, statistics)``, from the noisiest timestep to the cleanest."""
    found = [(int(t), m[measure]) for t, m in series.items() if t != ALL and measure in m and m[measure].count]
    return sorted(((t, bounded(s)) for t, s in found), key=lambda pair: -pair[0])


def bounded(stats: Stats) -> Stats:
    """The same within a range in which an axis can still be laid out.

    Raises:
        ReportError: for a number that is not finite.
    """
    values = {k: v for k, v in stats.to_json().items() if k != "count"}
    if not all(map(math.isfinite, values.values())):
        raise ReportError("the report holds a number that is not finite (NaN): measure again")
    return Stats(stats.count, **{k: min(max(v, -_LARGEST), _LARGEST) for k, v in values.items()})


def log_range(values: Iterable[float], decades: int = 8) -> tuple[float, float] | None:
    """Where a logarithmic scale begins and ends, or None if a linear one shows the values.

    Logarithmic from two decades on, over ``decades`` at most: smaller values, and 0, are drawn at its beginning.
    """
    positive = [v for v in values if v > 0]
    if not positive or max(positive) <= 100 * min(positive):
        return None
    high = max(positive)
    return max(min(positive), high / 10**decades), high


def short(value: float) -> str:
    """A number in five characters or fewer: ``0``, ``4e-5``, ``.012``, ``0.37``, ``1.4``, ``12``, ``3e8``."""
    size = abs(value)
    if size < 1 / _LARGEST:
        return "0"
    if size < 0.00095 or size >= 999.5:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if size < 0.0995:
        return f"{value:.3f}".replace("0.", ".", 1)
    return f"{value:.2f}" if size < 0.995 else f"{value:.1f}" if size < 9.95 else f"{value:.0f}"


def tick(value: float) -> str:
    """A round number on an axis, in six characters or fewer."""
    plain = f"{value:g}"
    return plain if len(plain) <= 5 and "e" not in plain else short(value)


def measured_on(report: Report) -> str:
    """The model and what it was measured on, in a few words."""
    parts = [str(report.model.get("name") or report.topology)]
    pictures, steps = report.measured.get("pictures"), report.measured.get("steps")
    count = len(pictures) if isinstance(pictures, (list, tuple)) else pictures
    for number, word in (count, "picture"), (steps, "step"):
        if isinstance(number, int):
            parts.append(f"{number} {word}{'' if number == 1 else 's'}")
    return ", ".join(parts) + (" (partial: ended early)" if report.partial else "")
