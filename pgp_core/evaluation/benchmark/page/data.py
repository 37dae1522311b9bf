"""What the page's script gets to know: JSON data, all names fit to be shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ....visible import visible
from ...metrics import METRICS
from ..results import Results, Row
from .pictures import Source
from .table import table
from .words import place, words

#: Columns beside rows.
LQ, HQ = "lq", "hq"


def row_key(number: int) -> str:
    """The column of a row's pictures."""
    return f"row{number}"


def sources(results: Results, size_of: Callable[[Path], tuple[int, int] | None]) -> list[dict[str, Source]]:
    """The pictures of each pair, by column.

    Args:
        size_of: width and height of a picture, None where it cannot be read.
    """
    found = []
    for pair in results.pairs:
        here: dict[str, Source] = {}
        if pair.lq is not None:
            here[LQ] = Source(pair.lq, lossless=True)
        for number, row in enumerate(results.rows):
            if file := row.files.get(pair.name):
                here[row_key(number)] = Source(file)
            elif row.kind == "bicubic" and pair.lq and pair.hq and (size := size_of(pair.hq)):
                here[row_key(number)] = Source(pair.lq, enlarged=size)
        if pair.hq is not None:
            here[HQ] = Source(pair.hq)
        found.append(here)
    return found


def page_data(results: Results, path: Path) -> dict[str, Any]:
    """All but the pictures.

    Args:
        path: of the page.
    """
    metrics = [METRICS[name] for name in results.metrics]
    return {
        "kind": results.kind,
        "metrics": [
            {
                "name": m.name,
                "head": visible(m.head),
                "arrow": m.arrow,
                "best": m.best,
                "ranked": m.ranked,
                "decimals": m.decimals,
                "about": m.about,
                "missing": visible(results.missing[m.name]) if m.name in results.missing else None,
            }
            for m in metrics
        ],
        "columns": _columns(results),
        "rows": [_row(row, path) for row in results.rows],
        "table": table(results, metrics),
        "pairs": [_pair(results, name) for name in (p.name for p in results.pairs)],
        "unmatched": [visible(line) for line in results.unmatched],
        "made": words(results.made),
        "folders": _folders(results, path),
    }


def _columns(results: Results) -> list[dict[str, str]]:
    found = [{"key": LQ, "label": "LQ"}] if any(p.lq for p in results.pairs) else []
    found += [{"key": row_key(n), "label": visible(row.name)} for n, row in enumerate(results.rows)]
    return [*found, {"key": HQ, "label": "HQ"}] if any(p.hq for p in results.pairs) else found


def _row(row: Row, path: Path) -> dict[str, Any]:
    seconds = sorted(s for s in row.seconds.values() if math.isfinite(s))
    return {
        "name": visible(row.name),
        "kind": row.kind,
        "settings": words(row.settings),
        "failed": len(row.failed),
        "seconds": seconds[len(seconds) // 2] if seconds else None,
        "folders": _of_files(row.files.values(), path),
    }


def _pair(results: Results, name: str) -> dict[str, Any]:
    return {
        "name": visible(name),
        "scores": [[_finite(row.scores.get(name, {}).get(m)) for m in results.metrics] for row in results.rows],
        "failed": {str(n): visible(row.failed[name]) for n, row in enumerate(results.rows) if name in row.failed},
        "seconds": [_finite(row.seconds.get(name)) for row in results.rows],
    }


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _folders(results: Results, path: Path) -> Mapping[str, list[str]]:
    """Where the originals of LQ and HQ are."""
    return {
        LQ: _of_files((p.lq for p in results.pairs if p.lq), path),
        HQ: _of_files((p.hq for p in results.pairs if p.hq), path),
    }


def _of_files(files: Iterable[Path], path: Path) -> list[str]:
    return sorted({place(file.parent, path) or "." for file in files})
