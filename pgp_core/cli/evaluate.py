"""``pgp-diffsr eval``: the tables of the documentation, made again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .numbers import count
from .output import emit


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser("eval", help="measure the nano model on photographs that it never saw")
    parser.add_argument("table", choices=("quality", "mechanism"))
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for table and pictures")
    parser.add_argument("--seeds", type=count, default=3, metavar="N", help="noise seeds 0 to N - 1 (3)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="nano's files, if not the bundled ones")
    parser.add_argument("--json", action="store_true", help="the table as one JSON object on stdout")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from ..evaluation.report import run
    from ..restorers.nano import model as nano

    data = run(args.table, args.folder or nano.FOLDER, tuple(range(args.seeds)), args.output)
    if args.json:
        emit(data)
    return 0
