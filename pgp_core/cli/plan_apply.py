"""``pgp-diffsr plan apply``: a pruned UNet file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..unet.plan import load_plan
from .output import emit, plain, say


def add_to(actions: Any) -> None:
    """Register the command."""
    parser = actions.add_parser("apply", help="write a UNet without the blocks that a plan removes")
    parser.add_argument("model", type=Path, metavar="MODEL", help="a UNet, or a checkpoint that holds one")
    parser.add_argument("plan", metavar="PLAN", help="name or file of a plan")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="ends in .safetensors; must not be there yet"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from ..unet.core_loading import loads_in_core
    from ..unet.prune_file import prune_file
    from .progress import file_progress

    plan = load_plan(args.plan)
    with file_progress(args.output.name) as progress:
        info = prune_file(args.model, plan, args.output, progress)
    loading = loads_in_core(info)
    for note in info.notes:
        say(f"{info.name}: {note}")
    if args.json:
        size = args.output.stat().st_size
        about: dict[str, Any] = {"input": str(args.model), "output": str(args.output), "plan": plan.name, "bytes": size}
        about |= {"topology": info.plan.topology, "stacks": info.plan.to_json()["stacks"]}
        emit({**about, "loads_in_core": loading.loads})
    plain(str(args.output))
    say(str(loading))
    return 0
