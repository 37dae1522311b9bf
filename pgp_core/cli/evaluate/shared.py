"""What ``eval pairs`` and ``eval pictures`` share: options, networks, and what is printed and written at the end."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import PGPError, name_some
from .. import model_options
from ..destination import check_room
from ..numbers import whole
from ..output import emit, plain, say

if TYPE_CHECKING:
    from ...evaluation.benchmark.measuring import Measuring
    from ...evaluation.benchmark.results import Results

#: Libraries whose versions are noted.
_LIBRARIES = ("numpy", "scipy", "scikit-image", "pillow", "torch", "torchmetrics", "pyiqa")
#: Lines that name single files.
_MOST = 5


def add_output(parser: argparse.ArgumentParser) -> None:
    """Register the options that both commands have."""
    parser.add_argument(
        "--metrics",
        metavar="A,B",
        help="which (all that there are): psnr_y, ssim, niqe …; a wrong name lists them",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for tables, page and pictures")
    parser.add_argument("--json", action="store_true", help="a JSON object a picture and row on stdout, then one a row")
    parser.add_argument("--download", action="store_true", help="let networks that measure be fetched")
    parser.add_argument(
        "--backbone",
        action="append",
        type=_backbone,
        metavar="METRIC=FILE",
        help="the network that lpips or dists stands on (where torchvision keeps it)",
    )
    parser.add_argument("--overwrite", action="store_true", help="make pictures again that are there already")
    parser.add_argument(
        "--workers", type=whole("workers", 0, 256), metavar="N", help="processes that measure (one a processor, to 8)"
    )
    parser.add_argument("--device", default="auto", help="of models and networks: cpu, cuda, cuda:1, mps (auto)")


def _backbone(text: str) -> tuple[str, Path]:
    """A type for argparse."""
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"lpips=FILE or dists=FILE is needed, not {text}")
    return name, Path(path)


def metrics(args: argparse.Namespace, references: Sequence[str | None]) -> list[str]:
    """The metrics that are asked for; wrong usage ends the program."""
    from ...evaluation.benchmark.measuring import chosen

    names = None if args.metrics is None else [n for n in args.metrics.replace(",", " ").split() if n]
    if names == []:
        args.wrong_usage("--metrics needs a name: psnr_y, or psnr_y,ssim")
    try:
        return chosen(names, references)
    except PGPError as e:
        args.wrong_usage(str(e))
        raise


@contextmanager
def folder(args: argparse.Namespace) -> Iterator[Path]:
    """Where pictures go: the folder that was given, held so that no other process writes to it; or one that is removed
    at the end."""
    from ...files.locks import locked

    with ExitStack() as stack:
        if args.output is None:
            yield Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgp-diffsr-")))
        else:
            check_room(args.output)
            stack.enter_context(locked(args.output, folder=True))
            yield args.output


def workers(args: argparse.Namespace, jobs: int) -> int:
    """How many processes measure."""
    from ...evaluation.benchmark.workers import default_workers

    return min(default_workers() if args.workers is None else args.workers, jobs)


class Bar:
    """A bar over all pictures, and lines that do not run into it."""

    def __init__(self, total: int, unit: str = "picture"):
        from tqdm import tqdm

        self.bar = tqdm(total=total, unit=unit, disable=None, leave=False)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def tick(self) -> None:
        """One more is done."""
        self.bar.update()

    def say(self, text: str) -> None:
        """A line for people."""
        self.bar.clear()
        say(text)
        self.bar.refresh()


def load_networks(args: argparse.Namespace, results: Results) -> dict[str, Any]:
    """Those metrics that are networks; what is missing is noted. Wrong usage ends the program."""
    from ...evaluation.metrics import METRICS

    names = [m for m in results.metrics if METRICS[m].network]
    backbones = dict(args.backbone or ())
    for name in backbones:
        if name not in names:
            args.wrong_usage(f"--backbone {name}=… belongs to no metric that is measured here")
    if not names:
        return {}
    from ...evaluation.metrics.networks import load
    from ..device import choose_device

    with model_options.usage(args):
        measures, missing = load(names, choose_device(args.device), args.download, backbones)
    results.missing.update(missing)
    return measures


def networks(results: Results, measuring: Measuring, measures: dict[str, Any]) -> None:
    """Measure by those that are there, in this process."""
    if measures:
        with Bar(sum(len(row.scores) for row in results.rows)) as bar:
            measuring.networks(measures, bar.tick)


def made(args: argparse.Namespace) -> dict[str, Any]:
    """What a reader needs to make it again."""
    from ... import __version__

    return {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "command": shlex.join(["pgp-diffsr", *args.typed]),
        "pgp-diffsr": __version__,
        "python": platform.python_version(),
        "libraries": {name: version for name in _LIBRARIES if (version := _version(name))},
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
    }


def _version(library: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(library)
    except PackageNotFoundError:
        return None


def unmatched(lines: Sequence[str]) -> None:
    """Name what has no partner."""
    for line in lines[:_MOST]:
        say(line)
    if len(lines) > _MOST:
        say(f"… and {len(lines) - _MOST} more like them ({len(lines)} in all)")


def finish(args: argparse.Namespace, results: Results, measuring: Measuring, failed: int) -> int:
    """Print and write what was found.

    Args:
        failed: files that could not be pictures, and belong to no row.

    Returns:
        the exit status.
    """
    from ...evaluation.benchmark.statistics import statistics
    from ...evaluation.benchmark.tables import legend, text_table
    from ...evaluation.benchmark.writing import picture_lines, row_lines, write

    found = statistics(results)
    measured = any(found.means.values())
    if measured:
        for line in (*text_table(results, found), *legend(results, found)):
            plain(line)
    _say_missing(results, measuring)
    if args.output is not None and measured:
        from ...evaluation.benchmark.page import write_page

        page = args.output / "index.html"
        tables = write(results, found, args.output)
        for note in write_page(results, page):
            say(note)
        say(f"written: {', '.join(path.name for path in tables)} and {page}")
    if args.json:
        for row in (*picture_lines(results), *row_lines(results, found)):
            emit(row)
    failures = {(name, line) for row in results.rows for name, line in row.failed.items()}
    if failures or failed:
        say(f"{len({name for name, _ in failures}) + failed} pictures failed, see above")
    if not measured:
        raise PGPError("nothing could be measured")
    return 1 if failures or failed else 0


def _say_missing(results: Results, measuring: Measuring) -> None:
    reasons: dict[str, list[str]] = {}
    for metric, why in results.missing.items():
        # What is said of several alike is said once.
        reasons.setdefault(why.removeprefix(f"{metric} "), []).append(metric)
    for why, names in reasons.items():
        say(f"{', '.join(names)}: {'each ' if len(names) > 1 else ''}{why}")
    for metric, lines in measuring.problems.items():
        pictures = name_some({pair for _, pair in lines})
        say(f"{metric} could not be measured of {pictures}: {next(iter(lines.values()))}")
