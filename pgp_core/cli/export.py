"""``pgp-diffsr export``: a UNet as other tools expect it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import emit, plain, say


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("export", help="write a UNet for tools that need block numbers without gaps")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a UNet, or a checkpoint that holds one")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="ends in .safetensors; must not be there yet"
    )
    parser.add_argument(
        "--renumber",
        action="store_true",
        required=True,
        help="number the blocks of each stack from 0 without gaps; LoRAs and plans no longer fit such a file",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from ..unet.core_loading import loads_in_core
    from ..unet.prune_file import renumber_file
    from .progress import file_progress

    with file_progress(args.output.name) as progress:
        info = renumber_file(args.model, args.output, progress)
    loading = loads_in_core(info, renumbered=True)
    for note in info.notes:
        say(f"{info.name}: {note}")
    if args.json:
        depths = {s: len(e.keep) for s, e in info.plan.stacks.items()}
        size = args.output.stat().st_size
        about = {"input": str(args.model), "output": str(args.output), "bytes": size, "depths": depths}
        emit({**about, "loads_in_core": loading.loads})
    plain(str(args.output))
    say(str(loading))
    return 0
