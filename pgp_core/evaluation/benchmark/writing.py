"""A benchmark's files, each there whole or not at all, and its JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import PictureError
from ...files.atomic import replacing
from ...visible import visible
from .results import Results, Row
from .statistics import LEVEL, RESAMPLES, SEED, Estimate, Statistics
from .tables import markdown

FORMAT, VERSION = "pgp-diffsr/benchmark", 1


def write(results: Results, found: Statistics, folder: Path) -> list[Path]:
    """Write ``pairs.csv``, ``pairs.json`` and ``pairs.md``, or ``pictures.…``, after the kind of benchmark.

    Raises:
        PictureError: if one cannot be written.
    """
    files = {
        "csv": csv_text(results),
        "json": json.dumps(everything(results, found, folder), indent=1, ensure_ascii=True) + "\n",
        "md": markdown(results, found),
    }
    written = []
    for ending, text in files.items():
        path = folder / f"{results.kind}.{ending}"
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(text.encode("utf-8", "backslashreplace"))
        except OSError as e:
            raise PictureError(f"{path} cannot be written: {e.strerror or e}") from None
        written.append(path)
    return written


def csv_text(results: Results) -> str:
    """A line a picture and row; an empty cell where there is no figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["picture", "row", *results.metrics, "seconds", "error"])
    for pair, row in _cells(results):
        scores = row.scores.get(pair, {})
        values = ["" if (v := scores.get(m)) is None else repr(v) for m in results.metrics]
        writer.writerow(
            [visible(pair), visible(row.name), *values, row.seconds.get(pair, ""), row.failed.get(pair, "")]
        )
    return out.getvalue()


def picture_lines(results: Results) -> Iterator[dict[str, Any]]:
    """A line of JSON a picture and row: ``picture``, ``row``, then the metrics by name, or ``error``."""
    for pair, row in _cells(results):
        line: dict[str, Any] = {"picture": pair, "row": row.name}
        if pair in row.failed:
            line["error"] = row.failed[pair]
        else:
            line |= {m: row.scores[pair].get(m) for m in results.metrics if m in row.scores[pair]}
        if pair in row.seconds:
            line["seconds"] = row.seconds[pair]
        yield line


def row_lines(results: Results, found: Statistics) -> Iterator[dict[str, Any]]:
    """A line of JSON a row: ``row``, ``mean``, ``interval``, ``pictures`` that count, ``differences`` to each row
    before it, ``failed``, ``missing``."""
    for row in results.rows:
        means = found.means[row.name]
        yield {
            "row": row.name,
            "mean": {m: means[m].mean if m in means else None for m in results.metrics},
            "interval": {m: _listed(means[m].interval) if m in means else None for m in results.metrics},
            "pictures": {m: means[m].pictures if m in means else 0 for m in results.metrics},
            "differences": {
                other: {m: _difference(e) for m, e in metrics.items()}
                for other, metrics in found.differences.get(row.name, {}).items()
            },
            "failed": dict(row.failed),
            "missing": dict(results.missing),
        }


def everything(results: Results, found: Statistics, folder: Path) -> dict[str, Any]:
    """All of a benchmark as JSON data; files that lie in ``folder`` are named from there."""
    rows = []
    for row, summary in zip(results.rows, row_lines(results, found), strict=True):
        del summary["missing"]
        rows.append(
            {
                **summary,
                "kind": row.kind,
                "settings": row.settings,
                "scores": row.scores,
                "seconds": row.seconds,
                "files": {name: _place(path, folder) for name, path in row.files.items()},
            }
        )
    data = {
        "format": FORMAT,
        "version": VERSION,
        "kind": results.kind,
        "metrics": results.metrics,
        "missing": results.missing,
        "unmatched": results.unmatched,
        "pairs": [
            {"name": p.name, **{k: _place(v, folder) for k, v in (("lq", p.lq), ("hq", p.hq)) if v is not None}}
            for p in results.pairs
        ],
        "rows": rows,
        "statistics": {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "interval": "bootstrap over pictures"},
        "made": results.made,
    }
    readable: dict[str, Any] = json.loads(json.dumps(data, default=str))
    return readable


def _cells(results: Results) -> Iterator[tuple[str, Row]]:
    """What there is, picture by picture."""
    for pair in results.pairs:
        for row in results.rows:
            if pair.name in row.scores or pair.name in row.failed:
                yield pair.name, row


def _difference(estimate: Estimate) -> Mapping[str, Any]:
    return {
        "mean": estimate.mean,
        "interval": _listed(estimate.interval),
        "beyond_chance": estimate.beyond_chance,
        "pictures": estimate.pictures,
    }


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _place(path: Path, folder: Path) -> str:
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return os.fspath(path)
