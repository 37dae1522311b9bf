"""``pgp-diffsr bench data``: how fast crops are made on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .numbers import count
from .output import emit, say
from .samples import add_samples, folder_samples


def add_to(actions: Any) -> None:
    """Register the command."""
    data = actions.add_parser(
        "data",
        help="how many crops a second one core makes",
        description="Makes crops of a folder's pictures in one process on one core: decodes, cuts, degrades, enlarges. "
        "Decoded pictures are not kept. Training makes crops in several processes (workers), each on a core.",
    )
    data.add_argument("--folder", type=Path, required=True, metavar="DIR", help="HQ pictures, in folders within it too")
    data.add_argument("--count", type=count, default=200, metavar="N", help="crops (200)")
    add_samples(data)
    data.add_argument("--json", action="store_true", help="one JSON object on stdout")
    data.set_defaults(run=_data)


def _data(args: argparse.Namespace) -> int:
    from ..errors import PGPError
    from ..training.samples import measure

    if not 1 <= args.count <= 100_000:
        raise PGPError(f"1 to 100000 crops can be timed, not {args.count}")
    # As in a folder that is far larger than what is kept of it.
    samples = folder_samples(args, args.folder, keep=0)
    speed = measure(samples, args.count)
    summary = samples.summary()
    for line in summary.lines():
        say(line)
    say(
        f"{speed.crops / speed.seconds:.1f} crops of {args.patch}x{args.patch} a second "
        f"({speed.crops / speed.cpu_seconds:.1f} a second of computing)"
    )
    if args.json:
        emit(
            {
                "crops": speed.crops,
                "patch": args.patch,
                "seconds": speed.seconds,
                "cpu_seconds": speed.cpu_seconds,
                "crops_per_second": speed.crops / speed.seconds,
                **summary.to_json(),
            }
        )
    return 0
