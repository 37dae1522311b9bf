"""``pgp-diffsr guidance init|show``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .numbers import seed
from .output import emit, table


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("guidance", help="guidance files: LQ adapter and PEAM, LQ encoder and alignment")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = actions.add_parser("init", help="an untrained guidance file for SDXL, which changes nothing yet")
    init.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="ends in .safetensors")
    init.add_argument("--faithdiff", type=Path, metavar="FILE", help="keep FaithDiff's encoder and alignment beside it")
    init.add_argument("--model", type=Path, metavar="FILE", help="the UNet to fit, if it is not as wide as SDXL's")
    init.add_argument("--plan", metavar="NAME|FILE", help="plan of the UNet that it will be trained with")
    init.add_argument("--seed", type=seed, default=0, metavar="N", help="of the start values (0)")
    init.add_argument("--json", action="store_true", help="one JSON object on stdout")
    init.set_defaults(run=_init)
    show = actions.add_parser("show", help="what a guidance file, or FaithDiff's own, holds")
    show.add_argument("file", type=Path, metavar="FILE")
    show.add_argument("--json", action="store_true", help="one JSON object on stdout")
    show.set_defaults(run=_show)


def _init(args: argparse.Namespace) -> int:
    from ..errors import GuidanceError
    from ..files.locks import locked
    from ..guidance.fresh import write_fresh_guidance
    from ..unet.plan import load_plan

    if args.output.suffix.lower() != ".safetensors":
        raise GuidanceError(f"a guidance file ends in .safetensors; {args.output} does not")
    plan = load_plan(args.plan) if args.plan else None
    with locked(args.output):
        if args.output.exists():
            raise GuidanceError(f"{args.output} is there already: delete it, or choose another name")
        write_fresh_guidance(args.output, args.faithdiff, args.model, plan, args.seed)
    args.file = args.output
    return _show(args)


def _show(args: argparse.Namespace) -> int:
    from ..files.weights import open_weights
    from ..guidance.file import read_guidance

    with open_weights(args.file) as file:
        spec, tensors = read_guidance(file)
    params = sum(t.numel() for t in tensors.values())
    if args.json:
        emit({"file": str(args.file), "params": params, **spec.to_json()})
        return 0
    table(
        [
            ("file", str(args.file)),
            ("base", spec.base),
            *((f"after {s.module}", f"{s.fusion}, {s.channels} channels") for s in spec.sites),
            ("parameters", f"{params / 1e6:.2f} M"),
            ("trained", "yes" if spec.trained else "no: its fresh parts change nothing"),
        ]
    )
    return 0
