"""``pgp-diffsr train nano``: make the nano model again, stage by stage."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import train_sheet
from .output import emit


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("train", help="training")
    actions = parser.add_subparsers(dest="action", required=True, metavar="WHAT")
    nano = actions.add_parser("nano", help="make the nano model: run its stages, then export")
    nano.add_argument(
        "--stage", action="append", metavar="NAME", help="regress, full, coarse, fine, peam, finish, s1 (all, in order)"
    )
    nano.add_argument("--folder", type=Path, default=Path("runs/nano"), help="where runs live and resume (runs/nano)")
    nano.add_argument("--minutes", type=float, metavar="F", help="budget of each stage instead of the recipe's")
    nano.add_argument("--threads", type=int, metavar="N", help="of PyTorch")
    nano.add_argument(
        "--from-shipped", action="store_true", help="take the files that ship as stage fine, and go on from there"
    )
    nano.add_argument("--export", type=Path, metavar="DIR", help="write the files that ship to DIR afterwards")
    nano.add_argument("--export-cfg", type=float, default=1.0, metavar="F", help="CFG that the files ask for (1)")
    nano.set_defaults(run=_nano)
    train_sheet.add_to(actions)


def _nano(args: argparse.Namespace) -> int:
    from ..errors import PGPError
    from ..training.export import export_nano, import_nano
    from ..training.nano import STAGES, run_stage

    after_fine = list(STAGES)[list(STAGES).index("fine") + 1 :]
    default = after_fine if args.from_shipped else list(STAGES)
    stages = args.stage if args.stage is not None else ([] if args.export else default)
    for name in stages:
        if name not in STAGES:
            raise PGPError(f"there is no stage {name}; the stages are {', '.join(STAGES)}")
    if args.from_shipped:
        import_nano(args.folder)
    for name in stages:
        emit(run_stage(name, args.folder, args.minutes, args.threads))
    if args.export:
        emit(export_nano(args.folder, args.export, args.export_cfg))
    return 0
