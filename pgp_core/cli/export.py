"""``pgp-diffsr export``: a UNet as other tools read it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .output import emit, plain, say


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "export",
        help="write the UNet of a file by itself, named as other tools read it",
        description="Writes the UNet of a file as safetensors with ComfyUI's own (LDM) names, whatever names the file "
        "has, each tensor as it is. Blocks keep their original numbers, so that LoRAs and plans fit.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a UNet, or a checkpoint that holds one")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="ends in .safetensors; must not be there yet"
    )
    parser.add_argument(
        "--renumber",
        action="store_true",
        help="number the blocks of each stack from 0 without gaps, for tools that count on it; LoRAs and plans no "
        "longer fit such a file",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from ..unet.core_loading import loads_in_core
    from ..unet.prune_file import prune_file, renumber_file
    from .progress import file_progress

    with file_progress(args.output.name) as progress:
        if args.renumber:
            info = renumber_file(args.model, args.output, progress)
        else:
            info = prune_file(args.model, None, args.output, progress)
    loading = loads_in_core(info, renumbered=args.renumber)
    for note in info.notes:
        say(f"{info.name}: {note}")
    if args.json:
        depths = {s: len(kept) for s, kept in info.plan.blocks.items()}
        size = args.output.stat().st_size
        about = {"input": str(args.model), "output": str(args.output), "bytes": size, "depths": depths}
        emit({**about, "renumbered": args.renumber, "loads_in_core": loading.loads})
    plain(str(args.output))
    say(str(loading))
    return 0
