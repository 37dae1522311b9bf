"""``pgp-diffsr eval efficiency``: what models cost: parameters, multiply-accumulates, seconds and memory."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import PGPError, PictureError
from .. import model_options, sampling_options
from ..destination import check_room
from ..device import choose_device
from ..numbers import count, whole
from ..output import emit, plain, say
from . import rows

if TYPE_CHECKING:
    from ...bench.efficiency import Efficiency, Task

SIZES, RUNS = (512, 1024), 3
_SIDE = whole("a size", 64, 8192)


def add_to(tables: Any) -> None:
    """Register the command."""
    parser = tables.add_parser(
        "efficiency",
        help="parameters, multiply-accumulates, seconds and memory of models",
        description="Measures what a picture costs with each --model, enlarged 4 times: parameters of UNet, VAE, text "
        "encoders and guidance; multiply-accumulates of the whole way, counted as it runs; seconds, the median of warm "
        "runs of all models in turn; peak memory, each model in a process of its own. Ratios are to the first row. "
        "Without --model it is nano. A model for which there is no room beside the others is measured after them.",
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=SIZES,
        metavar="N,N",
        help="sides of the results in pixels (512,1024, of pictures of a quarter of that)",
    )
    parser.add_argument("--runs", type=count, default=RUNS, metavar="N", help=f"timed runs; their median ({RUNS})")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (auto)")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder for efficiency.json and .md")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    rows.add_to(parser, finished=False)
    parser.set_defaults(run=run, wrong_usage=parser.error)


def _sizes(text: str) -> tuple[int, ...]:
    """A type for argparse: sides of results, the same one once."""
    words = text.replace(",", " ").split()
    if not words:
        raise argparse.ArgumentTypeError("a size is needed: 512, or 512,1024")
    return tuple(dict.fromkeys(_SIDE(word) for word in words))


def run(args: argparse.Namespace) -> int:
    """Measure; a model that cannot be measured is named, and the rest goes on."""
    device = choose_device(args.device)
    tasks = [_task(row) for row in rows.asked(args, [])]
    if args.output is not None:
        check_room(args.output)
    from tqdm import tqdm

    from ...bench.efficiency import measure
    from ...bench.efficiency.table import lines

    with tqdm(desc="efficiency", unit="run", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        def told(text: str) -> None:
            bar.clear()
            say(text)

        found = measure(tasks, args.sizes, args.runs, device, told, progress)
    for line in lines(found):
        plain(line)
    if args.output is not None:
        _write(found, args.output)
    if args.json:
        emit(found.to_json())
    failed = _failed(found)
    for line in failed:
        say(f"error: {line}")
    return 1 if failed else 0


def _task(row: rows.Asked) -> Task:
    """A model that was looked at, but not yet read."""
    from ...bench.efficiency import Task

    args = row.args
    assert args is not None
    given = model_options.given(args, sampling_options.one_step(args))
    with model_options.usage(args):
        found = model_options.find(given)
    if found.needs:
        raise PGPError(f"{row.name} needs {'; '.join(found.needs)}")
    settings = {name: value for name in sampling_options.SETTINGS if (value := getattr(args, name)) is not None}
    return Task(row.name, given, settings, {**sampling_options.own(args), "blend": args.blend, "phase": args.phase})


def _failed(found: Efficiency) -> list[str]:
    """What could not be measured, a line each."""
    told = [f"{row.name}: {row.error}" for row in found.rows if row.error is not None]
    for row in found.rows:
        told += [f"{row.name} at {size}x{size}: {s.error}" for size, s in row.sizes.items() if s.error is not None]
    return told


def _write(found: Efficiency, folder: Path) -> None:
    from ...bench.efficiency.table import markdown
    from ...files.atomic import replacing

    for name, text in (
        ("efficiency.json", json.dumps(found.to_json(), indent=1) + "\n"),
        ("efficiency.md", markdown(found)),
    ):
        try:
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as e:
            raise PictureError(f"{folder / name} cannot be written: {e.strerror or e}") from None
        say(f"written: {folder / name}")
