"""``pgp-diffsr eval pictures``: what can be said of pictures without anything to compare them with."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..output import say
from . import shared


def add_to(tables: Any) -> None:
    """Register the command."""
    parser = tables.add_parser(
        "pictures",
        help="your own photographs, by metrics that need no reference",
        description="Measures pictures by the metrics that look at nothing else. Several folders are several rows; "
        "pictures of the same name are compared.",
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folders of pictures, or files")
    shared.add_output(parser)
    parser.set_defaults(run=run, wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """Measure; a picture that fails is named and the rest goes on."""
    from ...evaluation.benchmark import matching
    from ...evaluation.benchmark.measuring import Measuring
    from ...evaluation.benchmark.results import Results, Row

    metrics = shared.metrics(args, (None,))
    folders = [matching.pictures_in(path) for path in args.folders]
    pairs, files = matching.match_folders(folders)
    results = Results("pictures", pairs, [], metrics, made=shared.made(args))
    for folder, found in zip(folders, files, strict=True):
        name = _name(folder.path, [row.name for row in results.rows])
        results.rows.append(Row(name, "folder", {"folder": str(folder.path)}, dict(found)))
        for line in folder.failed.values():
            say(f"error: {line}")
    jobs = sum(map(len, files))
    with (
        shared.folder(args),
        shared.Bar(jobs) as bar,
        Measuring(results, shared.workers(args, jobs), bar.say, bar.tick) as measuring,
    ):
        for row in results.rows:
            for pair in pairs:
                if pair.name in row.files:
                    measuring.picture(row, pair, row.files[pair.name])
        measuring.finish()
        bar.bar.close()
        shared.networks(results, measuring, shared.load_networks(args, results))
        return shared.finish(args, results, measuring, sum(len(f.failed) for f in folders))


def _name(path: Path, taken: list[str]) -> str:
    body = path.resolve().name or str(path)
    name, number = body, 2
    while name in taken:
        name, number = f"{body} ({number})", number + 1
    return name
